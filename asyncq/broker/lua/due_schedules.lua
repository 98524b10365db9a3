-- Hands out the schedules that are due within a short time, or that are due now. The worker that gets one prepares the job of its tick, and sends
-- it when the time has come. A schedule that was handed out is handed out to nobody else until a while after its tick: one worker is enough. If
-- that one dies, the next worker gets the schedule after that while. A schedule in code is handed out only to a worker session that declares
-- it as it is stored: another one may be of another version of the program.
-- Caller: every worker, shortly before a schedule is due.
-- Sent twice: hands out other schedules, or none. The caller's step after this one compares the schedule's version.
-- KEYS: due clock announced
-- ARGV: key_prefix max_schedules ahead_ms hand_out_ms
-- RETURNS: {time (ms), ms until the caller is to ask again for the next one (-1 if there is none), 1 if the clock was set back since a schedule was changed, {{name, {field, value...}} of each that is handed out...}, {{name, for how many ms it has been due} of each that the caller does not declare...}}
-- FLAGS: allow-oom
-- USES: record
local ABANDONED_MS = 300000 -- so long overdue, a schedule in code is left alone until a worker declares it again
local now = now_ms()
local horizon = now + tonumber(ahead_ms)
local latest = tonumber(redis.call('MGET', clock)[1]) or 0
local head = redis.call('ZRANGEBYSCORE', due, '(' .. string.format('%d', horizon), '(+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local wait = head[2] and math.ceil(head[2] - horizon) or -1
local handed_out, left_alone = {}, {}
local nearest = redis.call('ZRANGEBYSCORE', due, '-inf', horizon, 'WITHSCORES', 'LIMIT', 0, 1000)
for i = 1, #nearest, 2 do
  if #handed_out >= tonumber(max_schedules) then break end
  local name, due_at = nearest[i], tonumber(nearest[i + 1])
  local schedule = key_prefix .. KEY.SCHEDULES .. name
  local stored = redis.pcall('HMGET', schedule, 'v', 's', 'f')
  if not stored[1] then
    redis.call('ZREM', due, name)
  elseif stored[2] ~= 'code' or redis.pcall('HMGET', announced, 's' .. (stored[3] or '') .. name)[1] then
    redis.call('ZADD', due, math.max(now, due_at) + ahead_ms + hand_out_ms, name)
    handed_out[#handed_out + 1] = { name, redis.call('HGETALL', schedule) }
  elseif due_at < now - ABANDONED_MS then
    redis.call('ZADD', due, '+inf', name)
  else
    left_alone[#left_alone + 1] = { name, math.max(0, math.floor(now - due_at)) }
  end
end
return { now, wait, now < latest - 1000 and 1 or 0, handed_out, left_alone }
