-- What a stream holds behind a number, and whether more will come. Notes where the reader is, for as long as the job lives.
-- KEYS: record items position
-- ARGV: after count max_bytes position_read channel away_ms position_ttl
-- RETURNS: {false, ...} unknown | {record, ...} ended, and this is all | {flags, ...} there is, or may be, more; and each item's entry id and bytes
-- FLAGS: allow-oom
-- USES: record reader_position
local found = redis.call('MGET', record, position)
local flags = found[1] and parse(found[1])
if not flags or string.sub(flags, 1, 1) == 'T' then return { false } end
local answer, size, from, complete = { flags }, 0, tonumber(after) + 1, false
count = tonumber(count)
while not complete and #answer < 2 * count and size < tonumber(max_bytes) do
  -- Few at a time, for each may be as large as a result.
  local got = redis.call('XRANGE', items, string.format('%d-0', from), '+', 'COUNT', 5)
  for _, item in ipairs(got) do
    answer[#answer + 1] = item[1]
    answer[#answer + 1] = item[2][2]
    size = size + #item[2][2]
    from = tonumber(string.match(item[1], '^%d+')) + 1
  end
  complete = #got < 5
end
if not is_live(flags) then -- or no record of ours
  if complete then answer[1] = found[1] end
  return answer
end
local now = now_ms()
local number, at, _, awaited = parse_position(found[2])
position_read = tonumber(position_read)
if position_read >= number or now - at > tonumber(away_ms) then number, at = position_read, now end
if awaited > 0 and number >= awaited then
  redis.call('PUBLISH', channel, 'w' .. number)
  awaited = 0
end
redis.call('SET', position, number .. ' ' .. at .. ' ' .. now .. ' ' .. awaited, 'PX', position_ttl)
return answer
