-- Observations that workers make of each other are numbered, and each beat stores the number of the latest observation. So a session that has
-- not beaten since an observation has a lower number than that observation, and nobody needs to read the beats of all sessions to find it.

-- Returns the number of the latest observation; 1 if there was none, or if somebody has damaged it.
local function latest_observation(observations)
  local number = tonumber(redis.call('MGET', observations)[1])
  return number and number >= 1 and number < 2 ^ 52 and number or 1
end

-- Returns the number of a new observation. It follows the clock, for a server that has lost the last numbers must not give them out again;
-- and it is always higher than the last one, for the clock may be set back. It is kept for a day or longer; workers observe three times a
-- lease.
local function next_observation(observations, keep_ms)
  local time = redis.call('TIME')
  local number = math.max(time[1] * 1000 + math.floor(time[2] / 1000), latest_observation(observations) + 1)
  redis.call('SET', observations, string.format('%.0f', number), 'PX', math.max(86400000, tonumber(keep_ms)))
  return number
end
