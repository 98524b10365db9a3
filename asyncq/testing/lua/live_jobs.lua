-- Lists the jobs that have neither ended nor been forgotten, and the schedules that tick again. It visits all keys of the server, which a
-- test's server may do.
-- Caller: the harness of a test.
-- KEYS: clock
-- ARGV: (records_pattern waiting_pattern records delayed queues outbox schedules schedules_due group)* of each shard
-- RETURNS: {virtual time (ms), 1 if something is under way from shard to shard, {id, letter of the state, due at (ms) or '', worker session or ''} of each job, {name, '', tick due at (ms), ''} of each schedule...}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + (tonumber(redis.call('GET', KEYS[1])) or 0)
local answer = { now, 0 }

local function each_key(pattern, visit)
  local cursor = '0'
  repeat
    local found = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', 1000)
    cursor = found[1]
    for _, key in ipairs(found[2]) do visit(key) end
  until cursor == '0'
end

for i = 1, #ARGV, 9 do
  local records_pattern, waiting_pattern, records, delayed, queues, outbox, schedules, schedules_due, group = unpack(ARGV, i, i + 8)
  if redis.call('XLEN', outbox) > 0 then answer[2] = 1 end
  for _, id in ipairs(redis.call('ZRANGE', delayed, 0, -1)) do
    if string.sub(id, 1, 1) == ' ' then answer[2] = 1 end -- a delivery that goes on, see deliver_later
  end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', schedules_due, '-inf', '(+inf')) do
    -- Not the score: that of a schedule that a worker has is later than its tick.
    local due = redis.pcall('HMGET', schedules .. name, 'u')[1]
    if due and tonumber(due) then answer[#answer + 1] = { name, '', due, '' } end
  end
  -- The jobs that wait for a permit. They are delayed, too, but are woken before that.
  local waits_for_permit = {}
  each_key(waiting_pattern, function(key)
    for _, id in ipairs(redis.call('ZRANGE', key, 0, -1)) do waits_for_permit[id] = true end
  end)
  each_key(records_pattern, function(key)
    local letter, entry, queue = string.match(redis.call('GET', key) or '', '^([LDRPW])... (%S+) (%S+)')
    if not letter then return end
    local id = string.sub(key, #records + 1)
    local due = not waits_for_permit[id] and redis.call('ZSCORE', delayed, id)
    local pending = letter == 'L' and redis.pcall('XPENDING', queues .. queue, group, entry, entry, 1) or {}
    answer[#answer + 1] = { id, letter, due or '', pending[1] and pending[1][2] or '' }
  end)
end
return answer
