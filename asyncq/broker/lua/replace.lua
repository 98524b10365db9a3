-- Replaces a running job by a workflow: the last job of the workflow takes the id, the request id, the waiters and the dependents of the
-- running job. The fence is that of finish. A signalled job ends instead.
-- Caller: a worker.
-- Sent twice: the record does not name the entry any more, so the call is refused.
-- KEYS: stream
-- ARGV: key_prefix group consumer entry id push_limit ttl signals_prefix outcome channel queue wait parents wants_values message batches (id queue request_id flags wait ttl parents dependents wants_values message)*
-- RETURNS: 1 replaced, 2 ended by a signal, 0 refused (also when sent again), -1 another job has one of the ids | {ends, the same, ended jobs}
-- FLAGS: allow-oom
-- USES: record workflow
local flags, _, request_id, channels = check_claim(key_prefix .. KEY.RECORDS .. id, stream, group, consumer, entry, id)
if not flags then return 0 end
local taken, is_resent_call, tombstones = check_ids(first, stride, id)
local answer = 1
if is_signalled(flags) then
  clear_signal(signals_prefix .. consumer, id)
  end_job(id, flags, entry, consumer, request_id, channels, STATE.REVOKED, outcome, ttl, push_limit)
  answer = 2
elseif is_resent_call or #taken > 0 then
  return -1
else
  release_values(id, flags)
  flags = string.sub(flags, 1, 3) .. (has_dependents(flags) and LINK.DEPENDENTS or LINK.NONE)
  accept_jobs(first, stride, channel, batches, tombstones)
  -- The job has started in time, so the workflow that replaces it does not expire.
  if string.find(request_id, REQUEST.EXPIRES, 1, true) then request_id = call_of(request_id) .. REQUEST.STARTED end
  accept_job(id, queue, request_id, flags_of(flags), wait, ttl, parents, '', wants_values, message, channels, '1')
end
redis.call('XACK', stream, group, entry)
redis.call('XDEL', stream, entry)
return with_ends(answer)
