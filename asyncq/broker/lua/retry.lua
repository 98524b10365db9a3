-- Takes a failed job back and delays it until its next try. The fence is that of finish. A signalled job ends instead. For a job that
-- expires, `last` is its outcome if it expires before the next try starts.
-- Caller: a worker.
-- Sent twice: the record does not name the entry any more, so the call is refused.
-- KEYS: stream delayed
-- ARGV: key_prefix group consumer entry id wait retries error last messages wake push_limit ttl signals_prefix outcome
-- RETURNS: 1 waits for its next try, 2 ended by a signal, 0 refused (also when sent again) | {ends, the same, ended jobs}
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
  local fields = { 'a', retries, 'e', error }
  if last ~= '' then fields[5], fields[6] = 'l', last end
  for i = 1, #content[2], 2 do
    local name = content[2][i]
    if name == 'm' or name == 'c' or name == 'v' then
      fields[#fields + 1] = name
      fields[#fields + 1] = content[2][i + 1]
    end
  end
  -- A job of a last-attempt queue goes back there: beside other jobs, crashes that they cause would count for it.
  delay_job(key_prefix .. KEY.RECORDS .. id, STATE.RETRYING, flags, queue, request_id, channels, id, fields, wait, messages, delayed, wake)
  redis.call('PUBLISH', key_prefix .. KEY.EVENTS .. id, #error > tonumber(push_limit) and 'l' or 'r' .. entry .. ' ' .. retries .. ' ' .. error)
end
redis.call('XACK', stream, group, entry)
redis.call('XDEL', stream, entry)
return with_ends(answer)
