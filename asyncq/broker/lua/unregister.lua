-- Removes a worker session that ends in order. Refused while any entry is pending for it: to delete a consumer drops its pending entries
-- for good.
-- Caller: a worker, at the end of its shutdown.
-- Sent twice: removes nothing more, and answers 1.
-- KEYS: beats beat_observations signals announced started (stream)*
-- ARGV: group consumer
-- RETURNS: 1 removed, 0 it still holds something
-- FLAGS: allow-oom
for i = 6, #KEYS do
  if redis.call('XPENDING', KEYS[i], group, '-', '+', 1, consumer)[1] then return 0 end
end
for i = 6, #KEYS do redis.call('XGROUP', 'DELCONSUMER', KEYS[i], group, consumer) end
redis.call('HDEL', beats, consumer)
redis.call('ZREM', beat_observations, consumer)
redis.call('DEL', signals, announced, started)
return 1
