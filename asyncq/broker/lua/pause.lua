-- Pauses a queue, or lets it go on, and tells the workers that other queues than before are paused.
-- Caller: a client.
-- Sent twice: the queue is paused, or not, as before; the time since when it is paused stays.
-- KEYS: paused known_queues
-- ARGV: queue channel is_paused
-- RETURNS: 1 it is paused now or goes on now, 0 it was so before
-- FLAGS: allow-oom
-- USES: record
local changed
if is_paused == '1' then
  changed = redis.call('SET', paused, string.format('%.0f', now_ms()), 'NX')
  redis.call('SADD', known_queues, queue)
else
  changed = redis.call('DEL', paused) == 1
end
redis.call('PUBLISH', channel, '^') -- also if nothing has changed: the message of an earlier call may have been lost
return changed and 1 or 0
