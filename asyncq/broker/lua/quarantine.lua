-- Takes an entry that is no message of asyncq out of its stream, and keeps it as a dead letter, so that an operator can look at it. If a job
-- belongs to the entry all the same, that job ends with the given failure.
-- Caller: a worker.
-- Sent twice: the entry is not pending any more, so the call is refused.
-- KEYS: stream dead
-- ARGV: key_prefix group consumer entry reason outcome ttl push_limit dead_ttl dead_cap
-- RETURNS: 1 quarantined, 0 refused | {ends, the same, ended jobs}
-- FLAGS: allow-oom
-- USES: record workflow
if not redis.call('XPENDING', stream, group, entry, entry, 1, consumer)[1] then return 0 end
local content = redis.call('XRANGE', stream, entry, entry)[1]
local id
if content then
  for i = 1, #content[2], 2 do if content[2][i] == 'i' then id = content[2][i + 1] end end
end
local record = id and redis.call('MGET', key_prefix .. KEY.RECORDS .. id)[1]
if content then
  local raw = string.sub(cjson.encode(content[2]), 1, 65536)
  add_dead_letter(dead, { 'raw', raw }, string.match(stream, '[^:]*$'), reason, outcome, dead_ttl, dead_cap)
end
if record then
  local flags, current_entry, queue, request_id, channels = parse_record(record)
  if current_entry == entry and state_of(flags) == STATE.LIVE then
    end_job(id, flags, entry, consumer, request_id, channels, STATE.FAILED, outcome, ttl, push_limit)
    report_end(id, STATE.FAILED, queue, message_in(content[2]), outcome)
  end
end
redis.call('XACK', stream, group, entry)
redis.call('XDEL', stream, entry)
local answer = 1
return with_ends(answer)
