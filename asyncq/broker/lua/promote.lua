-- Moves what is due into its queue. Only what its record still calls delayed, and that exactly once. What is damaged must not hold up what
-- is due behind it: it is put off for a minute, and named, so that the caller ends the job. What waits for an ended job and was put aside, see
-- tell_later, is gone on with.
-- KEYS: delayed
-- ARGV: key_prefix records messages queues max_jobs events expected push_limit
-- RETURNS: {moved, ms until the next is due (-1 if none), monotonic time (ms), {id, 1 if its message is lost, what is wrong}...}
-- FLAGS: allow-oom
-- USES: record monotonic workflow
-- RARELY: go_on
local PARTS = { 'm', 'c', 'a', 'v', 'g', 'u', 'l' }
local now = now_ms()
local monotonic = monotonic_ms(key_prefix, now, expected)
local moved, damaged, bytes = 0, {}, 0

-- The entry of a job that is due; nil if its record does not call it delayed (any more), or if its message is lost, and what is wrong.
local function move(id)
  local record = redis.call('MGET', records .. id)[1]
  local flags, _, queue, request_id, channels
  if record then flags, _, queue, request_id, channels = parse(record) end
  if not flags or not string.find(flags, '^[DRP]') then return nil end
  local content, fields = redis.pcall('HMGET', messages .. id, unpack(PARTS)), { 'i', id }
  if not content[1] then return nil, content['err'] or 'its message is gone' end
  for k, name in ipairs(PARTS) do
    if content[k] then
      fields[#fields + 1] = name
      fields[#fields + 1] = content[k]
    end
  end
  use_level(key_prefix, queue)
  local entry = redis.call('XADD', queues .. queue, '*', unpack(fields))
  redis.call('SET', records .. id, 'L' .. string.sub(flags, 2) .. ' ' .. entry .. ' ' .. queue .. ' ' .. request_id .. channels)
  redis.call('PUBLISH', events .. id, 'q' .. entry)
  bytes = bytes + bytes_of(fields)
  return entry
end

local function take_out(id)
  if string.sub(id, 1, 1) == ' ' then
    go_on(string.sub(id, 2), tonumber(push_limit))
    return
  end
  local entry, lost = move(id)
  if lost then return lost end
  if entry then moved = moved + 1 end
  redis.call('DEL', messages .. id)
  redis.call('ZREM', delayed, id)
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, max_jobs)) do
  if bytes >= ENOUGH_MOVED then break end
  local is_whole, problem = pcall(take_out, id)
  if problem then
    redis.call('ZADD', delayed, now + 60000, id)
    damaged[#damaged + 1] = { id, is_whole and 1 or 0, type(problem) == 'table' and problem['err'] or tostring(problem) }
  end
end
local head = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
return { moved, head[2] and math.max(0, head[2] - now) or -1, monotonic, unpack(damaged) }
