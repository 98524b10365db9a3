-- Notes ended jobs in the history, which keeps the newest of each final state.
-- Caller: a worker or a client, for the jobs that it has ended in the last half second.
-- Sent twice: is sent once. A job that is noted twice would be listed twice.
-- ARGV: history most ttl (letter note)*
-- RETURNS: how many were noted
for i = first, #ARGV, stride do
  local ended = history .. ARGV[i]
  redis.call('XADD', ended, 'MAXLEN', most, '*', 'j', ARGV[i + 1])
  if ARGV[i + stride] ~= ARGV[i] then redis.call('PEXPIRE', ended, ttl) end
end
return (#ARGV - first + 1) / stride
