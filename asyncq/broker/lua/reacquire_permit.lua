-- A job of a task with a limited number of places gave its own back while it waited for another job, and goes on: before those that have not
-- started. If there is none it waits in front, and is told by the channel of its worker.
-- KEYS: held waiting beats
-- ARGV: claim session_id concurrency signals_prefix ttl
-- RETURNS: {1 it has a place | 0 it waits, a job that is to be called or ''}
-- FLAGS: allow-oom
-- USES: limits
if redis.call('HGET', held, claim) then return { 1, '' } end
local plan = survey(held, waiting, beats, concurrency, '')
local seated = false
for _, job in ipairs(plan.seat) do seated = seated or job[2] == claim end
settle_places(plan, held, waiting, signals_prefix, ttl)
if not seated and plan.free <= 0 then
  -- Scores of the others are the time in us: these are less, and in order among themselves.
  local time = redis.call('TIME')
  redis.call('ZADD', waiting, 'NX', time[1] / 1000000 + time[2] / 1000000000000, '>' .. claim .. ' ' .. session_id)
  redis.call('PEXPIRE', waiting, ttl)
  return { 0, '' }
end
if not seated then
  redis.call('HSET', held, claim, session_id)
  redis.call('PEXPIRE', held, ttl)
  redis.call('ZREM', waiting, '>' .. claim .. ' ' .. session_id)
  plan.free = plan.free - 1
end
return { 1, next_starter(plan, waiting, '') }
