-- Renews the schedules in code that a worker declares, finds those that it must store, and drops those that no worker has declared for too
-- long. A worker must store a schedule that is not there, or that an older process has declared otherwise. With `checks` also one that a
-- newer process has declared otherwise, if no worker session that beats declares it so any more: a newer version was taken back.
-- Caller: a worker when it begins, a few times within the time that a schedule is kept, and when a schedule that it declares is overdue.
-- Sent twice: renews again.
-- KEYS: due declared beats
-- ARGV: key_prefix announcements keep_ms since checks (name fingerprint)*
-- RETURNS: {time (ms), name of each that the caller must store...}
-- FLAGS: allow-oom
-- USES: record
local now = now_ms()
local answer = { now }

local function is_declared(name, fingerprint)
  local sessions = redis.call('HGETALL', beats)
  for i = 1, #sessions, 2 do
    if redis.pcall('HMGET', announcements .. sessions[i], 's' .. fingerprint .. name)[1] then return true end
  end
  return false
end

for i = first, #ARGV, stride do
  local name, fingerprint = ARGV[i], ARGV[i + 1]
  local source, stored, stored_since, tick, paused = unpack(redis.pcall('HMGET', key_prefix .. KEY.SCHEDULES .. name, 's', 'f', 't', 'n', 'p'))
  local must_store = not source
  if source == 'code' then
    redis.call('ZADD', declared, now + keep_ms, name)
    if stored == fingerprint then
      -- A schedule that was left alone for long is not due at any time until it is stored again.
      must_store = tick and tick ~= '' and paused ~= '1' and redis.call('ZSCORE', due, name) == 'inf'
    else
      local is_newer = (tonumber(since) or now) > (tonumber(stored_since) or 0)
      must_store = is_newer or (checks ~= '' and not is_declared(name, stored or ''))
    end
  elseif source then
    must_store = true -- a runtime schedule has the name, which the caller reports
  end
  if must_store then answer[#answer + 1] = name end
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', declared, '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('DEL', key_prefix .. KEY.SCHEDULES .. name)
  redis.call('ZREM', due, name)
  redis.call('ZREM', declared, name)
end
return answer
