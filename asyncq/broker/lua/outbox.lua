-- Reads entries of the outbox of this shard, the oldest first, and the server's time at which it was asked (ms).
-- Caller: the forwarder.
-- Sent twice: only reads.
-- KEYS: outbox
-- ARGV: max_entries max_bytes
-- RETURNS: {time, {entry, fields}...}: at most `max_entries`, and fewer if they have `max_bytes`
-- FLAGS: no-writes
-- USES: record
local answer, bytes, from = { now_ms() }, 0, '-'
repeat
  -- Few at a time: each may hold a long value.
  local batch = redis.call('XRANGE', outbox, from, '+', 'COUNT', 10)
  for _, item in ipairs(batch) do
    if #answer > tonumber(max_entries) or bytes > tonumber(max_bytes) then return answer end
    answer[#answer + 1] = item
    for _, field in ipairs(item[2]) do bytes = bytes + #field end
    from = '(' .. item[1]
  end
until #batch < 10
return answer
