-- What is to be told to other shards, oldest first, and when this was asked (ms, by the server's clock).
-- KEYS: outbox
-- ARGV: max_entries max_bytes
-- RETURNS: {asked, {entry, fields}...}: as many as the limit says at most, and none more where there are enough bytes
-- FLAGS: no-writes
-- USES: record
local found, bytes, from = { now_ms() }, 0, '-'
repeat
  -- Few at a time: each may hold a long value.
  local some = redis.call('XRANGE', outbox, from, '+', 'COUNT', 10)
  for _, item in ipairs(some) do
    if #found > tonumber(max_entries) or bytes > tonumber(max_bytes) then return found end
    found[#found + 1] = item
    for _, field in ipairs(item[2]) do bytes = bytes + #field end
    from = '(' .. item[1]
  end
until #some < 10
return found
