-- How the places of a limited task stand, as a plan, read before anything is written. `leaving` is a claim that is given back ('' for none).
-- `free`: places for whoever asks now. `dead`: claims of worker sessions that have no beat. `seat`: jobs that come back from a wait of
-- their own, which go before those that have not started. `gone`: of those, the ones whose worker is dead. `starters`: the first two ids that
-- wait to start.
local function survey(held, waiting, beats, concurrency, leaving)
  local plan = { free = tonumber(concurrency) - redis.call('HLEN', held), dead = {}, seat = {}, gone = {}, starters = {} }
  local lives = {}
  local function beats_still(session_id)
    if lives[session_id] == nil then lives[session_id] = redis.call('HGET', beats, session_id) and true or false end
    return lives[session_id]
  end
  if leaving ~= '' and redis.call('HGET', held, leaving) then plan.free = plan.free + 1 end
  if plan.free <= 0 then
    local claims = redis.call('HGETALL', held)
    for i = 1, #claims, 2 do
      if claims[i] ~= leaving and not beats_still(claims[i + 1]) then
        plan.dead[#plan.dead + 1] = claims[i]
        plan.free = plan.free + 1
      end
    end
  end
  for _, member in ipairs(redis.call('ZRANGE', waiting, 0, 99)) do
    local claim, session_id = string.match(member, '^>(.*) (%S+)$')
    if not claim then
      plan.starters[#plan.starters + 1] = member
      if #plan.starters == 2 then break end
    elseif claim == leaving or not beats_still(session_id) then
      plan.gone[#plan.gone + 1] = member
    elseif plan.free > 0 then
      plan.seat[#plan.seat + 1] = { member, claim, session_id }
      plan.free = plan.free - 1
    end
  end
  return plan
end

-- Does what the plan says. Who is seated is told: it waits in its worker's memory, not in a queue.
local function settle_places(plan, held, waiting, signals_prefix, ttl)
  for _, claim in ipairs(plan.dead) do redis.call('HDEL', held, claim) end
  for _, member in ipairs(plan.gone) do redis.call('ZREM', waiting, member) end
  for _, job in ipairs(plan.seat) do
    redis.call('HSET', held, job[2], job[3])
    redis.call('PEXPIRE', held, ttl)
    redis.call('ZREM', waiting, job[1])
    redis.call('PUBLISH', signals_prefix .. job[3], 'p' .. job[2])
  end
end

-- The job that the caller is to call, for there is a place for it; '' if there is none. Whoever is not called, for its caller dies, comes by
-- itself in the end.
local function next_starter(plan, waiting, me)
  if plan.free <= 0 then return '' end
  for _, id in ipairs(plan.starters) do
    if id ~= me then
      redis.call('ZREM', waiting, id)
      return id
    end
  end
  return ''
end
