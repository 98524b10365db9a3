-- Measures queues for the metrics: how many jobs wait, and since when the oldest of them does. Of all workers that report metrics, one
-- reports each queue, for as long as it asks in time: otherwise a sum over the workers would count each job several times.
-- Caller: a worker that reports metrics, every few seconds.
-- Sent twice: takes the same lease, and measures again.
-- KEYS: (stream)*
-- ARGV: group levels reporters reporter lease_ttl
-- RETURNS: for each queue {how many jobs wait, ms for which the oldest has waited}, or nothing if another reporter has the queue; without a reporter every queue is measured
-- FLAGS: allow-oom
local function is_mine(queue)
  if reporter == '' then return true end
  local current = redis.call('MGET', reporters .. queue)[1]
  if current and current ~= reporter then return false end
  redis.call('SET', reporters .. queue, reporter, 'PX', lease_ttl)
  return true
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local figures = {}
for k, queue_stream in ipairs(KEYS) do
  local queue, count, since = string.match(queue_stream, '[^:]*$'), 0, now
  figures[k] = {}
  if is_mine(queue) then
    local streams = {queue_stream, queue_stream .. '!'}
    for _, level in ipairs(redis.call('SMEMBERS', levels .. queue)) do streams[#streams + 1] = queue_stream .. '^' .. level end
    for _, stream in ipairs(streams) do
      local length = redis.pcall('XLEN', stream) -- an error of a key that is no stream: others may write the names of levels
      if type(length) == 'number' and length > 0 then
        -- Entries are claimed in their order, and deleted when their jobs end. So what lies behind the last pending entry waits.
        local pending, start = redis.pcall('XPENDING', stream, group), '-'
        if pending[1] and pending[1] > 0 then length, start = length - pending[1], '(' .. pending[3] end
        local first = length > 0 and redis.call('XRANGE', stream, start, '+', 'COUNT', 1)[1]
        if first then count, since = count + length, math.min(since, tonumber(string.match(first[1], '^%d+'))) end
      end
    end
    figures[k] = {count, now - since}
  end
end
return figures
