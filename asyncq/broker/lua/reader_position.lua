-- What a generator asks between two items: where its readers are. Sets how long the stream is kept, also after the end of the job, and
-- the number that the generator waits for: the reader that comes to it says so on the channel.
-- KEYS: record items position
-- ARGV: entry items_ttl awaited position_ttl
-- RETURNS: {number that the furthest reader took or -1, ms since it read, ms since any did or -1} | {-2} refused
-- FLAGS: allow-oom
-- USES: record reader_position
local found = redis.call('MGET', record, position)
local flags, named
if found[1] then flags, named = parse(found[1]) end
if named ~= entry then return { -2 } end
local now = now_ms()
local taken, at, read = parse_position(found[2])
redis.call('PEXPIRE', items, items_ttl)
if string.sub(flags, 1, 1) ~= 'L' then
  redis.call('DEL', position)
  return { -2 }
end
redis.call('SET', position, taken .. ' ' .. at .. ' ' .. read .. ' ' .. awaited, 'PX', position_ttl)
return { taken, now - at, read > 0 and now - read or -1 }
