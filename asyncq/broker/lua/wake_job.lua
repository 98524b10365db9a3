-- Makes a job due that was put aside until its turn: there is a place for it now.
-- KEYS: record delayed
-- ARGV: id wake
-- RETURNS: 1 it is due, 2 it comes by itself, 0 it is not there any more
-- FLAGS: allow-oom
-- USES: record
local found = redis.call('MGET', record)[1]
local letter = found and string.sub(found, 1, 1)
if letter == 'L' then return 2 end
if letter ~= 'P' then return 0 end
local now = now_ms()
redis.call('ZADD', delayed, 'XX', now, id)
redis.call('PUBLISH', wake, now)
return 1
