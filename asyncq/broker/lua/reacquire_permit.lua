-- Gives a permit back to a job that released its permit while it waited for another job. Such jobs go before those that have not started.
-- If no permit is free, the job waits in front of them, and its worker is notified on its channel when it is granted a permit.
-- Caller: a worker; again every second while the job waits.
-- Sent twice: the job has its permit, or its place among the waiting jobs, already.
-- KEYS: held waiting beats
-- ARGV: claim session_id concurrency signals_prefix ttl
-- RETURNS: {1 it has a permit | 0 it waits, id of a job to wake or ''}
-- FLAGS: allow-oom
-- USES: limits
if redis.call('HGET', held, claim) then return { 1, '' } end
local survey_result = survey(held, waiting, beats, concurrency, '')
local is_granted = false
for _, job in ipairs(survey_result.granted) do is_granted = is_granted or job[2] == claim end
apply_survey(survey_result, held, waiting, signals_prefix, ttl)
if not is_granted and survey_result.free <= 0 then
  -- The score of a job that has not started is the time in us. This one is less, and these jobs are in order among themselves.
  local time = redis.call('TIME')
  redis.call('ZADD', waiting, 'NX', time[1] / 1000000 + time[2] / 1000000000000, '>' .. claim .. ' ' .. session_id)
  redis.call('PEXPIRE', waiting, ttl)
  return { 0, '' }
end
if not is_granted then
  redis.call('HSET', held, claim, session_id)
  redis.call('PEXPIRE', held, ttl)
  redis.call('ZREM', waiting, '>' .. claim .. ' ' .. session_id)
  survey_result.free = survey_result.free - 1
end
return { 1, next_waiting_job(survey_result, waiting, '') }
