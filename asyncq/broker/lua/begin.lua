-- Stores that the body of a job is about to begin, if a worker has died with this job before. From the second crash on, a crash counts only
-- for jobs whose bodies had begun. Removes the notes of jobs that the worker session does not hold any more.
-- Caller: a worker, before it runs the body.
-- Sent twice: writes the same field.
-- KEYS: beats started
-- ARGV: session_id job ttl (ended)*
-- RETURNS: 1 stored, 0 the worker session was taken for dead
-- FLAGS: allow-oom
if not redis.call('HGET', beats, session_id) then return 0 end
for i = first, #ARGV do redis.call('HDEL', started, ARGV[i]) end
redis.call('HSET', started, job, '1')
redis.call('PEXPIRE', started, ttl)
return 1
