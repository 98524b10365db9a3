-- Removes schedules. The jobs that they have made stay.
-- Caller: a client.
-- Sent twice: they are gone already.
-- KEYS: due declared
-- ARGV: key_prefix (name)*
-- RETURNS: how many of them there were
-- FLAGS: allow-oom
local removed = 0
for i = first, #ARGV do
  removed = removed + redis.call('DEL', key_prefix .. KEY.SCHEDULES .. ARGV[i])
  redis.call('ZREM', due, ARGV[i])
  redis.call('ZREM', declared, ARGV[i])
end
return removed
