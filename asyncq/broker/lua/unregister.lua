-- A worker session goes in peace. Refused while it holds anything: deleting a consumer drops what is pending for it, for good.
-- KEYS: beats beat_observations signals announced started (stream)*
-- ARGV: group consumer
-- RETURNS: 1 gone, 0 it still holds something
-- FLAGS: allow-oom
for i = 6, #KEYS do
  if redis.call('XPENDING', KEYS[i], group, '-', '+', 1, consumer)[1] then return 0 end
end
for i = 6, #KEYS do redis.call('XGROUP', 'DELCONSUMER', KEYS[i], group, consumer) end
redis.call('HDEL', beats, consumer)
redis.call('ZREM', beat_observations, consumer)
redis.call('DEL', signals, announced, started)
return 1
