-- A job that runs becomes a workflow whose last job takes its id, its request id, its waiters and those who wait for it. Fenced as finish; a
-- signalled job ends instead.
-- KEYS: stream
-- ARGV: key_prefix group consumer entry id push_limit ttl signals_prefix outcome channel queue wait parents wants_values message batches (id queue request_id flags wait ttl parents dependents wants_values message)*
-- RETURNS: 1 replaced, 2 ended by a signal, 0 refused (also when sent again), -1 another job has one of the ids
-- FLAGS: allow-oom
-- USES: record workflow
local flags, _, request_id, channels = claimed(key_prefix .. 'r:' .. id, stream, group, consumer, entry, id)
if not flags then return 0 end
local taken, again, left = taken_among(first, stride, id)
local answer = 1
if string.sub(flags, 2, 2) ~= '-' then
  clear_signal(signals_prefix .. consumer, id)
  conclude(id, flags, entry, consumer, request_id, channels, 'C', outcome, ttl, push_limit)
  answer = 2
elseif again or #taken > 0 then
  return -1
else
  let_kept_go(id, flags)
  flags = string.sub(flags, 1, 3) .. (is_awaited(flags) and 'd' or '-')
  admit_all(first, stride, channel, batches, left)
  -- It has started in time: what takes its place does not expire in its name.
  if string.find(request_id, '~', 1, true) then request_id = string.match(request_id, '^[^~]*') .. '~-' end
  admit(id, queue, request_id, string.sub(flags, 2), wait, ttl, parents, '', wants_values, message, channels, '1')
end
redis.call('XACK', stream, group, entry)
redis.call('XDEL', stream, entry)
return answer
