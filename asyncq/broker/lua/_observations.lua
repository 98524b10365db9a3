-- Looks of workers at each other are numbered, and each beat notes the number of the latest look. So whoever has not beaten since a look has a
-- lower number than that look, and nobody need read the beats of all others to know it.

-- The number of the latest look; 1 if there was none, or if somebody has damaged it.
local function latest_observation(observations)
  local number = tonumber(redis.call('MGET', observations)[1])
  return number and number >= 1 and number < 2 ^ 52 and number or 1
end

-- Numbers another look. By the clock, for a server that has lost the last numbers must not give them again; and always a higher one, for a
-- clock may be set back. It is kept for a day or longer, for workers look three times a lease.
local function next_observation(observations, keep_ms)
  local time = redis.call('TIME')
  local number = math.max(time[1] * 1000 + math.floor(time[2] / 1000), latest_observation(observations) + 1)
  redis.call('SET', observations, string.format('%.0f', number), 'PX', math.max(86400000, tonumber(keep_ms)))
  return number
end
