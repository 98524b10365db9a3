-- Ends a job with a failure, and keeps its message and its error as a dead letter, so that an operator can look at it and send it again. The
-- fence is that of finish.
-- Caller: a worker, for a job that has no retries left or whose task is not registered.
-- Sent twice: the record says that this consumer has ended the job, so no second letter is written.
-- KEYS: stream dead
-- ARGV: key_prefix group consumer entry id outcome ttl push_limit signals_prefix reason dead_ttl dead_cap
-- RETURNS: 1 ended, 2 ended before, 0 refused | {ends, the same, ended jobs}
-- FLAGS: allow-oom
-- USES: record workflow
local record = redis.call('MGET', key_prefix .. KEY.RECORDS .. id)[1]
local flags, current_entry, queue, request_id, channels
if record then flags, current_entry, queue, request_id, channels = parse_record(record) end
if current_entry ~= entry then
  drop_leftover(stream, group, consumer, entry, id)
  return 0
end
if state_of(flags) ~= STATE.LIVE then return queue == consumer and 2 or 0 end
if not redis.call('XPENDING', stream, group, entry, entry, 1, consumer)[1] then return 0 end
local content = redis.call('XRANGE', stream, entry, entry)[1]
if content then
  keep_values_for_dead_letter(id, flags, dead_ttl)
  add_dead_letter(dead, content[2], queue, reason, outcome, dead_ttl, dead_cap)
end
if is_signalled(flags) then clear_signal(signals_prefix .. consumer, id) end
end_job(id, flags, entry, consumer, request_id, channels, STATE.FAILED, outcome, ttl, push_limit)
redis.call('XACK', stream, group, entry)
redis.call('XDEL', stream, entry)
local answer = 1
return with_ends(answer)
