-- Stores which tasks a worker session knows and which queues it serves, so that other workers leave it the jobs that they cannot run. Adds to
-- what the session announced before.
-- Caller: a worker, after its first beat, when it learns of more tasks, and twice a day.
-- Sent twice: writes the same fields.
-- KEYS: beats announced
-- ARGV: session_id ttl (field)*
-- RETURNS: 1 stored, 0 the worker session was taken for dead
-- FLAGS: allow-oom
if not redis.call('HGET', beats, session_id) then return 0 end
for i = first, #ARGV do redis.call('HSET', announced, ARGV[i], '1') end
redis.call('PEXPIRE', announced, ttl)
return 1
