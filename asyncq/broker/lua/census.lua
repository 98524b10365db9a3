-- Who reads from a queue, how much each holds, and how far its beats have come. Asked by every worker about all others.
-- KEYS: stream beats
-- ARGV: group
-- RETURNS: {{consumer, pending}...}, {incarnation, count, ...}, entries that nobody holds
-- FLAGS: no-writes
local readers, held = {}, 0
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
  local fields = {}
  for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
  readers[#readers + 1] = { fields['name'], fields['pending'] }
  held = held + fields['pending']
end
return { readers, redis.call('HGETALL', beats), redis.call('XLEN', stream) - held }
