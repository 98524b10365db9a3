-- Reads how far the readers of a generator's items are. Also sets how long the items are kept (the end of the job calls it for this, too),
-- and which number the generator waits for: the reader that reaches this number publishes it on the job's channel.
-- Caller: the stream writer of a worker, between two items, once an hour, and at the end of a job.
-- Sent twice: writes the same.
-- KEYS: record items position
-- ARGV: entry items_ttl awaited position_ttl
-- RETURNS: {position, number that the furthest reader took or -1, ms since it read, ms since any did or -1} | {refused}
-- FLAGS: allow-oom
-- USES: record reader_position
local values = redis.call('MGET', record, position)
local flags, current_entry
if values[1] then flags, current_entry = parse_record(values[1]) end
if current_entry ~= entry then return { ANSWER.REFUSED } end
local now = now_ms()
local furthest, furthest_at, read_at = parse_position(values[2])
redis.call('PEXPIRE', items, items_ttl)
if state_of(flags) ~= STATE.LIVE then
  redis.call('DEL', position)
  return { ANSWER.REFUSED }
end
redis.call('SET', position, furthest .. ' ' .. furthest_at .. ' ' .. read_at .. ' ' .. awaited, 'PX', position_ttl)
return { ANSWER.POSITION, furthest, now - furthest_at, read_at > 0 and now - read_at or -1 }
