-- Stores a schedule, or changes it, and with a tick makes the tick's job in the same step. Compares the version first: of all callers that
-- have read the same version one changes the schedule, so each tick becomes one job. If a job of another call has the id, a number follows it.
-- Caller: a worker that moves a schedule to its next tick, and every change by a user.
-- Sent twice: the schedule has the new version already, so nothing is written.
-- KEYS: schedule due declared clock
-- ARGV: key_prefix name expected version due_at keep_until wake_within tick not_before id queue request_id flags overlaps message (field value)*
-- RETURNS: {refused} if the schedule has another version | {early} if it is not yet time for the tick | {accepted, id of the job, empty if there was no tick} | {left out, id of the job before, which has not ended}
-- USES: record
local stored = redis.call('HMGET', schedule, 'v', 'l', 'r', 'o')
local previous = stored[2]
if stored[1] == version then return { ANSWER.ACCEPTED, previous or '' } end
if (stored[1] or '') ~= expected then return { ANSWER.REFUSED } end
local now = now_ms()
-- The caller counts on from the time that it was told, and the clock may have been set back since then.
if tick ~= '' and now < tonumber(not_before) then return { ANSWER.EARLY } end
local answer = { ANSWER.ACCEPTED, '' }
local fields = { 'v', version, 'u', due_at, unpack(ARGV, first) }

-- Returns the id for a job of a tick. Another call may have used it, and after the clock was set back a tick may come a second time.
local function free_id()
  local found, number = id, 1
  while redis.call('MGET', key_prefix .. KEY.RECORDS .. found)[1] do
    number = number + 1
    found = id .. '.' .. number
  end
  return found
end

local function add_fields(...)
  for _, word in ipairs({ ... }) do fields[#fields + 1] = word end
end

if tick ~= '' then
  local record = overlaps == '' and previous and redis.call('MGET', key_prefix .. KEY.RECORDS .. previous)[1]
  if record and is_live(record) then
    add_fields('o', (tonumber(stored[4]) or 0) + 1)
    answer = { ANSWER.LEFT_OUT, previous }
  else
    local job = free_id()
    use_level(key_prefix, queue)
    local entry = redis.call('XADD', key_prefix .. KEY.QUEUES .. queue, '*', 'i', job, 'm', message)
    redis.call('SET', key_prefix .. KEY.RECORDS .. job, STATE.LIVE .. flags .. ' ' .. entry .. ' ' .. queue .. ' ' .. request_id .. ' ')
    add_fields('r', (tonumber(stored[3]) or 0) + 1, 'l', job, 'k', tick)
    answer[2] = job
  end
end
redis.call('HSET', schedule, unpack(fields))
redis.call('ZADD', due, due_at, name)
if keep_until == '-' then
  redis.call('ZREM', declared, name)
elseif keep_until ~= '' then
  redis.call('ZADD', declared, keep_until, name)
end
-- Often enough for whoever compares it: a clock counts as set back from a second on.
if now > (tonumber(redis.call('MGET', clock)[1]) or 0) + 100 then redis.call('SET', clock, string.format('%d', now), 'PX', 8640000000) end
-- Workers ask at least once in `wake_within`, and see in time by themselves what is due later.
if wake_within ~= '' and due_at ~= '+inf' and tonumber(due_at) < now + wake_within then redis.call('PUBLISH', key_prefix .. KEY.SCHEDULES_WAKE, due_at) end
return answer
