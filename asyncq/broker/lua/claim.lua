-- Claims entries of several streams: as many of the first stream as the caller has room for, then of the next. A read of several streams by
-- one XREADGROUP would claim that number of each.
-- Caller: a worker whose queues have several levels of priority, returned queues or executor queues.
-- Sent twice: claims other entries. So it is sent once, and the worker finds what a lost answer has named by unknown_entries.
-- KEYS: (stream)*
-- ARGV: group consumer count (most)*
-- RETURNS: {stream, {{entry, {field, value...}}...}} for each stream from which it has claimed
-- FLAGS: allow-oom
local claimed, left = {}, tonumber(count)
for k, stream in ipairs(KEYS) do
  if left <= 0 then break end
  local wanted = math.min(left, tonumber(ARGV[first + k - 1]) or left)
  if wanted > 0 then
    local found = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', wanted, 'STREAMS', stream, '>')
    if found then
      claimed[#claimed + 1] = found[1]
      left = left - #found[1][2]
    end
  end
end
return claimed
