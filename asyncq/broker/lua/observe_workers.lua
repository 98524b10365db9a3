-- A look at the other workers, which each makes three times a lease: who has not beaten since an earlier look of the same observer, and who was
-- taken for dead since its last one. It costs the same however many workers there are.
-- The observer leaves word how old its looks are: whoever looks for the first time goes on where it was.
-- KEYS: beats beat_observations observations ages
-- ARGV: stale_since taken_since keep_ms own_ages
-- RETURNS: {number of this look, what an observer before said of the ages of its looks, {session_id that has not beaten since the look `before`, count of its beats}..., {session_id that was taken since the look `last`}...}
-- FLAGS: allow-oom
-- USES: observations
local observation = next_observation(observations, keep_ms)
local answer = { observation, redis.call('MGET', ages)[1] or '' }
if own_ages ~= '' then redis.call('SET', ages, string.format('%.0f', observation) .. ' ' .. own_ages, 'PX', keep_ms) end
-- Each beat writes to both. Where somebody has damaged one of them, whoever has no number of a look gets this one: else nobody would ever see
-- that it has stopped.
if redis.call('HLEN', beats) ~= redis.call('ZCOUNT', beat_observations, 1, observation) then
  local all = redis.call('HGETALL', beats)
  for i = 1, #all, 2 do
    local name = all[i]
    local number = tonumber(redis.call('ZSCORE', beat_observations, name))
    if not number or number < 1 or number > observation then redis.call('ZADD', beat_observations, observation, name) end
  end
end
local found = redis.call('ZRANGEBYSCORE', beat_observations, -observation, '(' .. stale_since, 'WITHSCORES')
for i = 1, #found, 2 do
  local name, number = found[i], tonumber(found[i + 1])
  if number > 0 then
    local count = redis.call('HGET', beats, name)
    answer[#answer + 1] = { name, count }
    if not count then redis.call('ZADD', beat_observations, -observation, name) end -- somebody has deleted it: as one that was taken
  elseif -number >= tonumber(taken_since) then
    answer[#answer + 1] = { name }
  elseif observation + number > tonumber(keep_ms) then
    redis.call('ZREM', beat_observations, name)
  end
end
return answer
