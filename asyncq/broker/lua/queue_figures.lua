-- Measures queues: how many jobs wait, since when the oldest of them does, and how many workers have. Of all workers that report metrics, one
-- reports each queue, for as long as it asks in time: otherwise a sum over the workers would count each job several times.
-- Caller: a worker that reports metrics, every few seconds; a client, for a listing of queues.
-- Sent twice: takes the same lease, and measures again.
-- KEYS: (stream)*
-- ARGV: group levels reporters reporter lease_ttl
-- RETURNS: for each queue {how many jobs wait, ms for which the oldest has waited, how many jobs workers have}, or nothing if another reporter has the queue; without a reporter every queue is measured
-- FLAGS: allow-oom
-- USES: record queues
local function is_mine(queue)
  if reporter == '' then return true end
  local current = redis.call('MGET', reporters .. queue)[1]
  if current and current ~= reporter then return false end
  redis.call('SET', reporters .. queue, reporter, 'PX', lease_ttl)
  return true
end
local now = now_ms()
local figures = {}
for k, queue_stream in ipairs(KEYS) do
  local queue, count, since, running = string.match(queue_stream, '[^:]*$'), 0, now, 0
  figures[k] = {}
  if is_mine(queue) then
    local streams = {queue_stream, queue_stream .. '!'}
    for _, level in ipairs(redis.call('SMEMBERS', levels .. queue)) do streams[#streams + 1] = queue_stream .. '^' .. level end
    for _, stream in ipairs(streams) do
      local waiting, held, start = entries_of(stream, group)
      local first = waiting > 0 and redis.call('XRANGE', stream, start, '+', 'COUNT', 1)[1]
      running = running + held
      if first then count, since = count + waiting, math.min(since, tonumber(string.match(first[1], '^%d+'))) end
    end
    figures[k] = {count, now - since, running}
  end
end
return figures
