-- Says that an incarnation of a worker lives. Only its first beat makes the field: once it is gone the incarnation is dead for ever.
-- A script and not a plain HINCRBY, which is refused when memory is full: every worker would look dead.
-- KEYS: beats beaten looks marked
-- ARGV: incarnation count
-- RETURNS: false if the incarnation was taken for dead, else {id of a job that it holds, its mark and the reason}...
-- FLAGS: allow-oom
-- USES: looks
if count ~= '1' and not redis.call('HGET', beats, incarnation) then return false end
redis.call('HSET', beats, incarnation, count)
redis.call('ZADD', beaten, latest_look(looks), incarnation)
return redis.call('HGETALL', marked)
