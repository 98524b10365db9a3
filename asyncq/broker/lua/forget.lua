-- Forgets the result of a job: at once if the job has ended, else when it ends (its waiters still get the outcome). Nothing is deleted
-- before a minute has passed, see enqueue.
-- Caller: a client.
-- Sent twice: the answer is `unknown` or `flagged`, and nothing changes.
-- KEYS: record latest items position
-- RETURNS: unknown | forgotten | flagged
-- FLAGS: allow-oom
-- USES: record
local record_text = redis.call('MGET', record)[1]
if not record_text then return 'unknown' end
local flags, entry, consumer, request_id = parse_record(record_text)
local state = state_of(flags)
if state == STATE.TOMBSTONE then return 'unknown' end
if is_live(flags) then
  redis.call('SETRANGE', record, 2, WISH.FORGOTTEN)
  return 'flagged'
end
redis.call('SET', record, STATE.TOMBSTONE .. FLAGS.NONE .. ' ' .. entry .. ' ' .. consumer .. ' ' .. request_id, 'PX', 60000)
redis.call('DEL', latest, items, position)
return 'forgotten'
