-- What is to be told to other shards, oldest first, and when this was asked (ms, by the server's clock).
-- KEYS: outbox
-- ARGV: limit
-- RETURNS: {asked, {entry, fields}...}
-- FLAGS: no-writes
-- USES: record
local time = now_ms()
return { time, unpack(redis.call('XRANGE', outbox, '-', '+', 'COUNT', limit)) }
