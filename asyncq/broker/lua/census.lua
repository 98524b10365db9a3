-- Who reads from some queues, how much each holds, and how far its beats have come. Asked by every worker about all others.
-- KEYS: beats (stream)*
-- ARGV: group levels (queue)*
-- RETURNS: {incarnation, count, ...}, then for each queue the levels of priority that it has, then for each stream {{{consumer, pending}...}, entries that nobody holds}
-- FLAGS: no-writes
local answer = { redis.call('HGETALL', beats) }
for i = first, #ARGV do answer[#answer + 1] = redis.call('SMEMBERS', levels .. ARGV[i]) end
for k = 2, #KEYS do
  local readers, held = {}, 0
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[k], group)) do
    local fields = {}
    for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
    readers[#readers + 1] = { fields['name'], fields['pending'] }
    held = held + fields['pending']
  end
  answer[#answer + 1] = { readers, redis.call('XLEN', KEYS[k]) - held }
end
return answer
