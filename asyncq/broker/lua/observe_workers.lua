-- Observes the other workers: which sessions have not beaten since an earlier observation of the same observer, and which were taken for dead
-- since its last one. The cost does not depend on the number of workers. The observer also stores how old its observations are, so that an
-- observer which begins can continue from there.
-- Caller: each worker, three times a lease.
-- Sent twice: makes another observation, with a higher number.
-- KEYS: beats beat_observations observations ages
-- ARGV: stale_since taken_since keep_ms own_ages
-- RETURNS: {number of this observation, what an observer stored of the ages of its observations, {silent, session id that has not beaten since the observation `stale_since`, count of its beats} | {dead, session id that was taken for dead since the observation `taken_since`}...}
-- FLAGS: allow-oom
-- USES: observations
local observation = next_observation(observations, keep_ms)
local answer = { observation, redis.call('MGET', ages)[1] or '' }
if own_ages ~= '' then redis.call('SET', ages, string.format('%.0f', observation) .. ' ' .. own_ages, 'PX', keep_ms) end
-- Each beat writes to both keys. If somebody has damaged one of them, a session without the number of an observation gets this number: else
-- nobody would ever notice that it has stopped.
if redis.call('HLEN', beats) ~= redis.call('ZCOUNT', beat_observations, 1, observation) then
  local all = redis.call('HGETALL', beats)
  for i = 1, #all, 2 do
    local name = all[i]
    local number = tonumber(redis.call('ZSCORE', beat_observations, name))
    if not number or number < 1 or number > observation then redis.call('ZADD', beat_observations, observation, name) end
  end
end
local sessions = redis.call('ZRANGEBYSCORE', beat_observations, -observation, '(' .. stale_since, 'WITHSCORES')
for i = 1, #sessions, 2 do
  local name, number = sessions[i], tonumber(sessions[i + 1])
  if number > 0 then
    local count = redis.call('HGET', beats, name)
    answer[#answer + 1] = { ANSWER.SILENT, name, count }
    -- Without a beat, which somebody has deleted, it is as dead as a session that was taken.
    if not count then redis.call('ZADD', beat_observations, -observation, name) end
  elseif -number >= tonumber(taken_since) then
    answer[#answer + 1] = { ANSWER.DEAD, name }
  elseif observation + number > tonumber(keep_ms) then
    redis.call('ZREM', beat_observations, name)
  end
end
return answer
