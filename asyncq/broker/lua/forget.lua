-- Forgets the result of a job: at once if it ended, else when it ends (its waiters still get the outcome). Nothing is deleted in under
-- a minute, see enqueue.
-- KEYS: record latest items position
-- RETURNS: unknown | forgotten | flagged
-- FLAGS: allow-oom
-- USES: record
local found = redis.call('MGET', record)[1]
if not found then return 'unknown' end
local flags, entry, consumer, request_id = parse(found)
local state = string.sub(flags, 1, 1)
if state == 'T' then return 'unknown' end
if is_live(flags) then
  redis.call('SETRANGE', record, 2, 'f')
  return 'flagged'
end
redis.call('SET', record, 'T--- ' .. entry .. ' ' .. consumer .. ' ' .. request_id, 'PX', 60000)
redis.call('DEL', latest, items, position)
return 'forgotten'
