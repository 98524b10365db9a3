-- Notes which bodies of a worker session may have begun, so that its death counts as a crash for no other job. A note is about a job with
-- which a worker has died before (`<entry> <id>`: its body begins), or about a stream from which the session fetches ahead (the stream: its
-- bodies have begun up to that entry, and none behind it). A note with an empty value is removed.
-- Caller: a worker, before it runs the bodies.
-- Sent twice: writes the same notes.
-- KEYS: beats started
-- ARGV: session_id ttl (note value)*
-- RETURNS: 1 stored, 0 the worker session was taken for dead
-- FLAGS: allow-oom
if not redis.call('HGET', beats, session_id) then return 0 end
for i = first, #ARGV, stride do
  if ARGV[i + 1] == '' then redis.call('HDEL', started, ARGV[i]) else redis.call('HSET', started, ARGV[i], ARGV[i + 1]) end
end
redis.call('PEXPIRE', started, ttl)
return 1
