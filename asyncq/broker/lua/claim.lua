-- Claims entries of the first stream that has some. A read of several streams by one XREADGROUP would claim that number of each.
-- Caller: a worker whose queues have several levels of priority, returned queues or executor queues.
-- Sent twice: claims other entries. So it is sent once, and the worker finds what a lost answer has named by unknown_entries.
-- KEYS: (stream)*
-- ARGV: group consumer count (most)*
-- RETURNS: {stream, {{entry, {field, value...}}...}}, or nothing if all streams are empty
-- FLAGS: allow-oom
for k, stream in ipairs(KEYS) do
  local found = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', ARGV[first + k - 1] or count, 'STREAMS', stream, '>')
  if found then return found[1] end
end
