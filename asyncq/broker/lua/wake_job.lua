-- Makes a deferred job due, for its task has a free permit now.
-- Caller: a worker that was given the job's id by limit, release_permit or reacquire_permit.
-- Sent twice: the job is due already.
-- KEYS: record delayed
-- ARGV: id wake
-- RETURNS: 1 it is due, 2 it is in its queue already, 0 there is no such job any more
-- FLAGS: allow-oom
-- USES: record
local found = redis.call('MGET', record)[1]
local letter = found and state_of(found)
if letter == STATE.LIVE then return 2 end
if letter ~= STATE.DEFERRED then return 0 end
local now = now_ms()
redis.call('ZADD', delayed, 'XX', now, id)
redis.call('PUBLISH', wake, now)
return 1
