-- Takes a claimed job back before its body has begun, and delays it: until its task's limit lets it start, or until a worker that knows the
-- task takes it. One field of its message tells the next worker what happened so far. The fence is that of finish. A signalled job ends
-- instead.
-- Caller: a worker.
-- Sent twice: the record does not name the entry any more, so the call is refused.
-- KEYS: stream delayed
-- ARGV: key_prefix group consumer entry id wait field value messages wake push_limit ttl signals_prefix outcome
-- RETURNS: 1 deferred, 2 ended by a signal, 0 refused (also when sent again) | {ends, the same, ended jobs}
-- FLAGS: allow-oom
-- USES: record workflow
local flags, queue, request_id, channels = check_claim(key_prefix .. KEY.RECORDS .. id, stream, group, consumer, entry, id)
local content = flags and redis.call('XRANGE', stream, entry, entry)[1]
if not content then return 0 end
local answer = 1
if is_signalled(flags) then
  clear_signal(signals_prefix .. consumer, id)
  end_job(id, flags, entry, consumer, request_id, channels, STATE.REVOKED, outcome, ttl, push_limit)
  answer = 2
else
  local fields = { field, value }
  for i = 1, #content[2], 2 do
    local name = content[2][i]
    if name ~= 'i' and name ~= field then
      fields[#fields + 1] = name
      fields[#fields + 1] = content[2][i + 1]
    end
  end
  delay_job(key_prefix .. KEY.RECORDS .. id, STATE.DEFERRED, flags, queue, request_id, channels, id, fields, wait, messages, delayed, wake)
  redis.call('PUBLISH', key_prefix .. KEY.EVENTS .. id, 'l')
end
redis.call('XACK', stream, group, entry)
redis.call('XDEL', stream, entry)
return with_ends(answer)
