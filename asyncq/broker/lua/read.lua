-- Reads the items of a stream that follow a number, and whether more will come. Stores the position of the reader while the job is live.
-- Caller: a client that reads a stream.
-- Sent twice: only the times of the position differ.
-- KEYS: record items position
-- ARGV: after count max_bytes position_read channel away_ms position_ttl
-- RETURNS: {unknown} | {ended, record, entry id of an item, its bytes, ...} this is all | {more, flags, entry id of an item, its bytes, ...} there is, or may be, more
-- FLAGS: allow-oom
-- USES: record reader_position
local values = redis.call('MGET', record, position)
local flags = values[1] and parse_record(values[1])
if not flags or state_of(flags) == STATE.TOMBSTONE then return { ANSWER.UNKNOWN } end
local answer, size, from, complete = { ANSWER.MORE, flags }, 0, tonumber(after) + 1, false
count = tonumber(count)
while not complete and #answer < 2 * count + 1 and size < tonumber(max_bytes) do
  -- Few at a time: each may be as large as a result.
  local batch = redis.call('XRANGE', items, string.format('%d-0', from), '+', 'COUNT', 5)
  for _, item in ipairs(batch) do
    answer[#answer + 1] = item[1]
    answer[#answer + 1] = item[2][2]
    size = size + #item[2][2]
    from = tonumber(string.match(item[1], '^%d+')) + 1
  end
  complete = #batch < 5
end
if not is_live(flags) then -- or the record is none of ours
  if complete then answer[1], answer[2] = ANSWER.ENDED, values[1] end
  return answer
end
local now = now_ms()
local number, read_at, _, awaited = parse_position(values[2])
position_read = tonumber(position_read)
if position_read >= number or now - read_at > tonumber(away_ms) then number, read_at = position_read, now end
if awaited > 0 and number >= awaited then
  redis.call('PUBLISH', channel, 'w' .. number)
  awaited = 0
end
redis.call('SET', position, number .. ' ' .. read_at .. ' ' .. now .. ' ' .. awaited, 'PX', position_ttl)
return answer
