-- Says that a worker session lives. Only its first beat makes the field: once it is gone the worker session is dead for ever.
-- A script and not a plain HINCRBY, which is refused when memory is full: every worker would look dead.
-- KEYS: beats beat_observations observations signals
-- ARGV: session_id count
-- RETURNS: false if the worker session was taken for dead, else {id of a job that it holds, its signal and the reason}...
-- FLAGS: allow-oom
-- USES: observations
if count ~= '1' and not redis.call('HGET', beats, session_id) then return false end
redis.call('HSET', beats, session_id, count)
redis.call('ZADD', beat_observations, latest_observation(observations), session_id)
return redis.call('HGETALL', signals)
