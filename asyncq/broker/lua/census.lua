-- What a worker looks at three times a lease: levels of priority and last tries that it does not know of, and for which streams it is the one
-- that lists the consumers. To list them takes time for each consumer: were every worker to do it, that would be n squared. So each stream has
-- a watcher, which stays that for as long as it asks in time.
-- KEYS: (stream)*
-- ARGV: group levels watchers incarnation watch_ttl lanes (queue)*
-- RETURNS: for each queue the levels of priority that it has, then for each stream 1 if the caller watches it, else 0; then for each of the last streams, which are lanes, how many entries nobody holds
-- FLAGS: allow-oom
local answer, keys = {}, {}
for i = first, #ARGV do answer[#answer + 1] = redis.call('SMEMBERS', levels .. ARGV[i]) end
for k, stream in ipairs(KEYS) do keys[k] = watchers .. string.match(stream, '[^:]*$') end
for k, watcher in ipairs(redis.call('MGET', unpack(keys))) do
  local mine = not watcher or watcher == incarnation
  if mine then redis.call('SET', keys[k], incarnation, 'PX', watch_ttl) end
  answer[#answer + 1] = mine and 1 or 0
end
for k = #KEYS - tonumber(lanes) + 1, #KEYS do
  local all = redis.call('XLEN', KEYS[k])
  answer[#answer + 1] = all == 0 and 0 or all - redis.call('XPENDING', KEYS[k], group)[1]
end
return answer
