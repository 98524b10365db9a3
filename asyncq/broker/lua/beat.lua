-- Stores that a worker session is alive. Only its first beat makes the field: once the field is gone, the session is dead for ever. This is a
-- script because the server refuses a plain HINCRBY when memory is full, and then every worker would look dead.
-- Caller: the heartbeat thread of a worker, three times a lease.
-- Sent twice: writes the same count.
-- KEYS: beats beat_observations observations signals
-- ARGV: session_id count
-- RETURNS: false if the worker session was taken for dead, else {id of a job that it holds, the signal to it and the reason}...
-- FLAGS: allow-oom
-- USES: observations
if count ~= '1' and not redis.call('HGET', beats, session_id) then return false end
redis.call('HSET', beats, session_id, count)
redis.call('ZADD', beat_observations, latest_observation(observations), session_id)
return redis.call('HGETALL', signals)
