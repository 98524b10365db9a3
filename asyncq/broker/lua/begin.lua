-- Notes that the body of a job is about to begin, with which a worker has died before: from its second crash on, only a body that had begun
-- counts as a cause. Takes the notes of jobs back that the worker session does not have any more.
-- KEYS: beats started
-- ARGV: session_id job ttl (ended)*
-- RETURNS: 1 noted, 0 the worker session was taken for dead
-- FLAGS: allow-oom
if not redis.call('HGET', beats, session_id) then return 0 end
for i = first, #ARGV do redis.call('HDEL', started, ARGV[i]) end
redis.call('HSET', started, job, '1')
redis.call('PEXPIRE', started, ttl)
return 1
