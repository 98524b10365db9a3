-- Who reads from a queue, how much each holds, and how far its beats have come. Asked by every worker about all others.
-- KEYS: stream beats
-- ARGV: group
-- RETURNS: {{consumer, pending}...}, {incarnation, count, ...}
-- FLAGS: no-writes
local readers = {}
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
  local fields = {}
  for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
  readers[#readers + 1] = { fields['name'], fields['pending'] }
end
return { readers, redis.call('HGETALL', beats) }
