-- Ends a job with a failure and keeps it with the dead letters, message and error, so that it can be looked at and sent again. Fenced as
-- finish.
-- KEYS: stream dead
-- ARGV: key_prefix group consumer entry id outcome ttl push_limit signals_prefix reason dead_ttl dead_cap
-- RETURNS: 1 ended, 2 ended before, 0 refused
-- FLAGS: allow-oom
-- USES: record workflow
local record = redis.call('MGET', key_prefix .. 'r:' .. id)[1]
local flags, named, queue, request_id, channels
if record then flags, named, queue, request_id, channels = parse(record) end
if named ~= entry then
  drop_leftover(stream, group, consumer, entry, id)
  return 0
end
if string.sub(flags, 1, 1) ~= 'L' then return queue == consumer and 2 or 0 end
if not redis.call('XPENDING', stream, group, entry, entry, 1, consumer)[1] then return 0 end
local content = redis.call('XRANGE', stream, entry, entry)[1]
if content then
  keep_for_letter(id, flags, dead_ttl)
  keep_dead(dead, content[2], queue, reason, outcome, dead_ttl, dead_cap)
end
if string.sub(flags, 2, 2) ~= '-' then clear_signal(signals_prefix .. consumer, id) end
conclude(id, flags, entry, consumer, request_id, channels, 'F', outcome, ttl, push_limit)
redis.call('XACK', stream, group, entry)
redis.call('XDEL', stream, entry)
return 1
