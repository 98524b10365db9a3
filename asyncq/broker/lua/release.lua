-- Hands jobs back that were not finished, without counting a crash: a new entry for each, so that the old claim is void, in their own stream
-- or in a line behind it, which is named then. A marked one ends instead.
-- KEYS: stream target
-- ARGV: space group consumer push_limit ttl marks revoked line (entry id)*
-- RETURNS: for each: 1 handed back, 2 ended, 0 refused; nothing for those that are left where there are enough bytes
-- FLAGS: allow-oom
-- USES: record workflow
local answers, bytes = {}, 0
for i = first, #ARGV, stride do
  if bytes >= ENOUGH_MOVED then break end
  local entry, id = ARGV[i], ARGV[i + 1]
  local answer = 0
  local flags, queue, request_id, channels = claimed(space .. 'r:' .. id, stream, group, consumer, entry, id)
  local content = flags and redis.call('XRANGE', stream, entry, entry)[1]
  if content then
    bytes = bytes + bytes_of(content[2])
    if string.sub(flags, 2, 2) ~= '-' then
      unmark(marks .. consumer, id)
      conclude(id, flags, entry, consumer, request_id, channels, 'C', revoked, ttl, push_limit)
      answer = 2
    else
      if line ~= '' then
        use_level(space, line)
        queue = line
      end
      local again = redis.call('XADD', target, '*', unpack(content[2]))
      redis.call('SET', space .. 'r:' .. id, flags .. ' ' .. again .. ' ' .. queue .. ' ' .. request_id .. channels)
      answer = 1
    end
    redis.call('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
  end
  answers[#answers + 1] = answer
end
return answers
