-- Gives the place of a body that has ended, or waits for another job, to whoever is next. With an empty claim, only finds who that is. With
-- the id of a job that was just put aside, finds it if it was called before it could be.
-- KEYS: held waiting beats
-- ARGV: claim concurrency signals_prefix ttl deferred
-- RETURNS: the id of a job that is to be called, or ''
-- FLAGS: allow-oom
-- USES: limits
if deferred ~= '' and not redis.call('ZSCORE', waiting, deferred) then return deferred end
local plan = survey(held, waiting, beats, concurrency, claim)
redis.call('HDEL', held, claim)
settle_places(plan, held, waiting, signals_prefix, ttl)
return next_starter(plan, waiting, '')
