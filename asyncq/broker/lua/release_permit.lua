-- Releases the permit of a body that has ended or waits for another job, and gives it to the next job. With an empty claim it only finds
-- the next job. With the id of a job that was just deferred, it returns that job if somebody tried to wake it before it was deferred.
-- Caller: a worker.
-- Sent twice: the permit is gone already. It may name another job, which then finds no permit and waits on.
-- KEYS: held waiting beats
-- ARGV: claim concurrency signals_prefix ttl deferred
-- RETURNS: the id of a job to wake, or ''
-- FLAGS: allow-oom
-- USES: limits
if deferred ~= '' and not redis.call('ZSCORE', waiting, deferred) then return deferred end
local survey_result = survey(held, waiting, beats, concurrency, claim)
redis.call('HDEL', held, claim)
apply_survey(survey_result, held, waiting, signals_prefix, ttl)
return next_waiting_job(survey_result, waiting, '')
