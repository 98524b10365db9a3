-- Decides whether the attempt of a job of a limited task may start: a permit must be free, and the rate must allow it. The keys belong to the
-- task.
-- Caller: a worker, after it has claimed the job and before the body begins.
-- Sent twice: a job that has a permit gets the same answer. Of a rate, it is given another start time, and nobody uses the first one.
-- KEYS: rate held waiting beats
-- ARGV: key_prefix claim session_id id concurrency interval tolerance limiter_state expires_in signals_prefix ttl expected
-- RETURNS: {1 it starts | 0 it waits for its start time | 2 it waits for a permit, ms to wait, its limiter state, id of a job to wake or '', monotonic time (ms)}
-- FLAGS: allow-oom
-- USES: limits monotonic
concurrency, interval = tonumber(concurrency), tonumber(interval)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local monotonic_now = monotonic_ms(key_prefix, math.floor(now / 1000), expected)
now = monotonic_now * 1000 + time[2] % 1000
local has_start_time, asked_at = string.match(limiter_state, '^(%d) (%d+)$')
asked_at = asked_at or string.format('%.0f', now)
local survey_result = { free = math.huge, waiting_jobs = {} }
local waiting_count = 0
if concurrency > 0 then
  if redis.call('HGET', held, claim) then return { 1, 0, limiter_state, '', monotonic_now } end -- sent again
  survey_result = survey(held, waiting, beats, concurrency, '')
  waiting_count = redis.call('ZCARD', waiting)
end
-- The generic cell rate algorithm (ITU-T I.371). `next_start` is when the next start is due after those that there were. A job that comes
-- before that is given a start time, and `next_unassigned` is the first start time that no job has. A job that comes at its start time may
-- be a little late. A job that comes much later competes with those that are on time, and may have to wait again: else all jobs would start
-- at once when the workers have been away.
local interval_text = ARGV[6]
local next_start, next_unassigned, stored_interval = string.match(redis.call('MGET', rate)[1] or '', '^(%S+) (%S+) (%S+)$')
next_start, next_unassigned = tonumber(next_start) or 0, tonumber(next_unassigned) or 0
-- A time that is further away than any rate allows is damaged. `not <=` and not `>`: NaN is no time either.
if not (next_start <= now + interval + 86400e6) then next_start = now + interval end
if not (next_unassigned <= now + 1e15) then next_unassigned = next_start end
if stored_interval ~= interval_text then next_unassigned = next_start end -- the rate has changed: start times of the old rate do not count
local starts, wait = survey_result.free > 0, 0
if not starts then
  wait = math.min(3600000, 5000 + 20 * waiting_count) -- it is woken before that; if not, some 50 jobs a second ask again, however many wait
elseif interval > 0 then
  local earliest = has_start_time == '1' and next_start - tonumber(tolerance) or math.max(next_start, next_unassigned)
  starts = now >= earliest
  if not starts then wait = math.ceil((math.max(next_start, next_unassigned) - now) / 1000) end
end
local before_expiry = expires_in == '' or wait < tonumber(expires_in)
if not before_expiry then wait = math.max(0, tonumber(expires_in)) end -- it will have expired by then, and takes no start time

if concurrency > 0 then
  apply_survey(survey_result, held, waiting, signals_prefix, ttl)
  if survey_result.free <= 0 then
    redis.call('ZADD', waiting, asked_at, id)
    redis.call('PEXPIRE', waiting, ttl)
    return { 2, wait, (has_start_time or '0') .. ' ' .. asked_at, '', monotonic_now }
  end
  redis.call('ZREM', waiting, id)
end
if interval > 0 and (starts or before_expiry) then
  if starts then
    next_start = math.max(next_start, now) + interval
    if has_start_time ~= '1' then next_unassigned = math.max(next_unassigned, now + interval) end
  else
    next_unassigned = math.max(next_start, next_unassigned) + interval
    has_start_time = '1'
  end
  local rate_ttl = math.ceil((math.max(next_start, next_unassigned) - now) / 1000) + 1000
  redis.call('SET', rate, string.format('%.2f %.2f %s', next_start, next_unassigned, interval_text), 'PX', string.format('%.0f', rate_ttl))
end
if starts and concurrency > 0 then
  redis.call('HSET', held, claim, session_id)
  redis.call('PEXPIRE', held, ttl)
  survey_result.free = survey_result.free - 1
end
return { starts and 1 or 0, wait, (has_start_time or '0') .. ' ' .. asked_at, next_waiting_job(survey_result, waiting, id), monotonic_now }
