-- Hands jobs back that were not finished, without counting a crash: a new entry for each, so that the old claim is void, in their own stream
-- or in a line behind it, which is named then. A signalled one ends instead.
-- KEYS: stream target
-- ARGV: key_prefix group consumer push_limit ttl signals_prefix revoked_outcome executor_queue (entry id)*
-- RETURNS: for each: 1 handed back, 2 ended, 0 refused; nothing for those that are left where there are enough bytes
-- FLAGS: allow-oom
-- USES: record workflow
local answers, bytes = {}, 0
for i = first, #ARGV, stride do
  if bytes >= ENOUGH_MOVED then break end
  local entry, id = ARGV[i], ARGV[i + 1]
  local answer = 0
  local flags, queue, request_id, channels = claimed(key_prefix .. 'r:' .. id, stream, group, consumer, entry, id)
  local content = flags and redis.call('XRANGE', stream, entry, entry)[1]
  if content then
    bytes = bytes + bytes_of(content[2])
    if string.sub(flags, 2, 2) ~= '-' then
      clear_signal(signals_prefix .. consumer, id)
      conclude(id, flags, entry, consumer, request_id, channels, 'C', revoked_outcome, ttl, push_limit)
      answer = 2
    else
      if executor_queue ~= '' then
        use_level(key_prefix, executor_queue)
        queue = executor_queue
      end
      local again = redis.call('XADD', target, '*', unpack(content[2]))
      redis.call('SET', key_prefix .. 'r:' .. id, flags .. ' ' .. again .. ' ' .. queue .. ' ' .. request_id .. channels)
      answer = 1
    end
    redis.call('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
  end
  answers[#answers + 1] = answer
end
return answers
