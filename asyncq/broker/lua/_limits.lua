-- Reads the permits of a limited task, and decides who gets one. Writes nothing. `released` is a claim whose permit is given back ('' for
-- none). The result has:
-- `free`: how many permits are left for the caller.
-- `dead`: claims of worker sessions that have no beat. Their permits are free.
-- `granted`: jobs that released their permit to wait for another job, and get one now. They go before jobs that have not started.
-- `stale`: such jobs whose worker session has no beat. They leave the list.
-- `waiting_jobs`: the first two ids of jobs that wait to start.
local function survey(held, waiting, beats, concurrency, released)
  local survey_result = { free = tonumber(concurrency) - redis.call('HLEN', held), dead = {}, granted = {}, stale = {}, waiting_jobs = {} }
  local alive = {}
  local function is_alive(session_id)
    if alive[session_id] == nil then alive[session_id] = redis.call('HGET', beats, session_id) and true or false end
    return alive[session_id]
  end
  if released ~= '' and redis.call('HGET', held, released) then survey_result.free = survey_result.free + 1 end
  if survey_result.free <= 0 then
    local claims = redis.call('HGETALL', held)
    for i = 1, #claims, 2 do
      if claims[i] ~= released and not is_alive(claims[i + 1]) then
        survey_result.dead[#survey_result.dead + 1] = claims[i]
        survey_result.free = survey_result.free + 1
      end
    end
  end
  for _, member in ipairs(redis.call('ZRANGE', waiting, 0, 99)) do
    local claim, session_id = string.match(member, '^>(.*) (%S+)$')
    if not claim then
      survey_result.waiting_jobs[#survey_result.waiting_jobs + 1] = member
      if #survey_result.waiting_jobs == 2 then break end
    elseif claim == released or not is_alive(session_id) then
      survey_result.stale[#survey_result.stale + 1] = member
    elseif survey_result.free > 0 then
      survey_result.granted[#survey_result.granted + 1] = { member, claim, session_id }
      survey_result.free = survey_result.free - 1
    end
  end
  return survey_result
end

-- Writes what survey decided. A job that is granted a permit waits in its worker's memory and not in a queue, so its worker is notified.
local function apply_survey(survey_result, held, waiting, signals_prefix, ttl)
  for _, claim in ipairs(survey_result.dead) do redis.call('HDEL', held, claim) end
  for _, member in ipairs(survey_result.stale) do redis.call('ZREM', waiting, member) end
  for _, job in ipairs(survey_result.granted) do
    redis.call('HSET', held, job[2], job[3])
    redis.call('PEXPIRE', held, ttl)
    redis.call('ZREM', waiting, job[1])
    redis.call('PUBLISH', signals_prefix .. job[3], 'p' .. job[2])
  end
end

-- Returns the id of the job that the caller must wake, for a permit is free for it; '' if there is none. If the caller dies before it wakes
-- the job, the job becomes due by itself in the end.
local function next_waiting_job(survey_result, waiting, own_id)
  if survey_result.free <= 0 then return '' end
  for _, id in ipairs(survey_result.waiting_jobs) do
    if id ~= own_id then
      redis.call('ZREM', waiting, id)
      return id
    end
  end
  return ''
end
