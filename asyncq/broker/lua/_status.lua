-- What a worker session says of itself.

-- Stores it with what the session announces, so that it is deleted with that. Returns 1; 0 if the session was taken for dead; an error if
-- somebody has damaged what the session announces.
local function store_status(beats, announced, session_id, status, ttl)
  if not redis.call('HGET', beats, session_id) then return 0 end
  local answer = redis.pcall('HSET', announced, 'i', string.format('%.0f ', now_ms()) .. status)
  if type(answer) == 'table' and answer.err then return answer end
  redis.call('PEXPIRE', announced, ttl)
  return 1
end
