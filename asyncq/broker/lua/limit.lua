-- Whether the attempt of a job of a limited task may start: there must be a place, and the rate must allow it. Keys are the task's.
-- KEYS: rate held waiting beats
-- ARGV: key_prefix claim session_id id concurrency interval tolerance limiter_state expires_in signals_prefix ttl expected
-- RETURNS: {1 it starts | 0 it waits for its moment | 2 it waits for a place, ms to wait, its turn, a job that is to be called or '', monotonic time (ms)}
-- FLAGS: allow-oom
-- USES: limits monotonic
concurrency, interval = tonumber(concurrency), tonumber(interval)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local monotonic = monotonic_ms(key_prefix, math.floor(now / 1000), expected)
now = monotonic * 1000 + time[2] % 1000
local granted, since = string.match(limiter_state, '^(%d) (%d+)$')
since = since or string.format('%.0f', now)
local plan = { free = math.huge, starters = {} }
local ahead = 0
if concurrency > 0 then
  if redis.call('HGET', held, claim) then return { 1, 0, limiter_state, '', monotonic } end -- sent again
  plan = survey(held, waiting, beats, concurrency, '')
  ahead = redis.call('ZCARD', waiting)
end
-- The generic cell rate algorithm (ITU-T I.371): `open` is when the next start is due by those that there were. What is not open yet is
-- given a moment, and `free_from` is the first that nobody has. Who comes at its moment may be a little late and is not held against it; who
-- comes much later meets those that are on time, and may have to wait anew: else all would start at once when the workers were away.
local interval_text = ARGV[6]
local open, free_from, before = string.match(redis.call('MGET', rate)[1] or '', '^(%S+) (%S+) (%S+)$')
open, free_from = tonumber(open) or 0, tonumber(free_from) or 0
-- What is further off than any rate puts it is damaged. Not `>`, for NaN is no time either.
if not (open <= now + interval + 86400e6) then open = now + interval end
if not (free_from <= now + 1e15) then free_from = open end
if before ~= interval_text then free_from = open end -- the rate was changed: moments that were given out under the other count for nothing
local starts, wait = plan.free > 0, 0
if not starts then
  wait = math.min(3600000, 5000 + 20 * ahead) -- it is called before; if not, some 50 a second come to look, however many wait
elseif interval > 0 then
  local earliest = granted == '1' and open - tonumber(tolerance) or math.max(open, free_from)
  starts = now >= earliest
  if not starts then wait = math.ceil((math.max(open, free_from) - now) / 1000) end
end
local in_time = expires_in == '' or wait < tonumber(expires_in)
if not in_time then wait = math.max(0, tonumber(expires_in)) end -- then it has expired, and takes nobody's moment

if concurrency > 0 then
  settle_places(plan, held, waiting, signals_prefix, ttl)
  if plan.free <= 0 then
    redis.call('ZADD', waiting, since, id)
    redis.call('PEXPIRE', waiting, ttl)
    return { 2, wait, (granted or '0') .. ' ' .. since, '', monotonic }
  end
  redis.call('ZREM', waiting, id)
end
if interval > 0 and (starts or in_time) then
  if starts then
    open = math.max(open, now) + interval
    if granted ~= '1' then free_from = math.max(free_from, now + interval) end
  else
    free_from = math.max(open, free_from) + interval
    granted = '1'
  end
  local lives = math.ceil((math.max(open, free_from) - now) / 1000) + 1000
  redis.call('SET', rate, string.format('%.2f %.2f %s', open, free_from, interval_text), 'PX', string.format('%.0f', lives))
end
if starts and concurrency > 0 then
  redis.call('HSET', held, claim, session_id)
  redis.call('PEXPIRE', held, ttl)
  plan.free = plan.free - 1
end
return { starts and 1 or 0, wait, (granted or '0') .. ' ' .. since, next_starter(plan, waiting, id), monotonic }
