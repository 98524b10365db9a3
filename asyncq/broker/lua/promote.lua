-- Moves what is due into its queue. Only what its record still calls delayed, and that exactly once.
-- KEYS: delayed
-- ARGV: records messages queues limit events
-- RETURNS: {moved, ms until the next is due (-1 if none)}
-- FLAGS: allow-oom
-- USES: record
local now = now_ms()
local moved = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, limit)) do
  local record = redis.call('MGET', records .. id)[1]
  local content = redis.call('HGETALL', messages .. id)
  local flags, _, queue, nonce, channels
  if record then flags, _, queue, nonce, channels = parse(record) end
  if #content > 0 and flags and string.find('DRP', string.sub(flags, 1, 1), 1, true) then
    local fields = { 'i', id }
    for i = 1, #content, 2 do
      if content[i] ~= 'e' then
        fields[#fields + 1] = content[i]
        fields[#fields + 1] = content[i + 1]
      end
    end
    use_level(string.sub(queues, 1, -3), queue)
    local entry = redis.call('XADD', queues .. queue, '*', unpack(fields))
    redis.call('SET', records .. id, 'L' .. string.sub(flags, 2) .. ' ' .. entry .. ' ' .. queue .. ' ' .. nonce .. channels)
    redis.call('PUBLISH', events .. id, 'q' .. entry)
    moved = moved + 1
  end
  redis.call('DEL', messages .. id)
  redis.call('ZREM', delayed, id)
end
local head = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
return { moved, head[2] and math.max(0, head[2] - now) or -1 }
