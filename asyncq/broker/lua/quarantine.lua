-- Sets an entry aside that is no message of asyncq: kept with the dead letters, so that somebody can look at it, and out of the way.
-- If a job stands behind it all the same, that job ends with the given failure.
-- KEYS: stream dead
-- ARGV: key_prefix group consumer entry reason outcome ttl push_limit dead_ttl dead_cap
-- RETURNS: 1 set aside, 0 not ours
-- FLAGS: allow-oom
-- USES: record workflow
if not redis.call('XPENDING', stream, group, entry, entry, 1, consumer)[1] then return 0 end
local content = redis.call('XRANGE', stream, entry, entry)[1]
local id
if content then
  for i = 1, #content[2], 2 do if content[2][i] == 'i' then id = content[2][i + 1] end end
end
local record = id and redis.call('MGET', key_prefix .. 'r:' .. id)[1]
if content then
  local raw = string.sub(cjson.encode(content[2]), 1, 65536)
  keep_dead(dead, { 'raw', raw }, string.match(stream, '[^:]*$'), reason, outcome, dead_ttl, dead_cap)
end
if record then
  local flags, named, queue, request_id, channels = parse(record)
  if named == entry and string.sub(flags, 1, 1) == 'L' then
    conclude(id, flags, entry, consumer, request_id, channels, 'F', outcome, ttl, push_limit)
  end
end
redis.call('XACK', stream, group, entry)
redis.call('XDEL', stream, entry)
return 1
