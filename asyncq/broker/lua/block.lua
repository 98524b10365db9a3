-- Says for which jobs a running one waits, and looks in the same step whether any of them waits for it, itself or through others. Only the
-- edges count that carry the entry which their job's record names: others are of an attempt that crashed.
-- KEYS: record waits
-- ARGV: key_prefix id entry wait_token ttl max_jobs (target)*
-- RETURNS: the ids on the way from a target back to the job, if there is one: then nothing was noted. Else {}
-- FLAGS: allow-oom
-- USES: record waits
local own = redis.call('MGET', record)[1]
if not own then return {} end
local flags, current = parse(own)
if not is_live(flags) or current ~= entry then return {} end

-- Breadth first, so that the way is the shortest. Beyond the limit nothing is said: other clients want their turn.
local before, level, seen = {}, {}, 0
local function reach(node, from, following)
  if before[node] == nil then
    before[node] = from
    following[#following + 1] = node
  end
end
for i = first, #ARGV do reach(ARGV[i], false, level) end
while #level > 0 and before[id] == nil and seen < tonumber(max_jobs) do
  local following = {}
  for start = 1, #level, 500 do
    local keys = {}
    for k = start, math.min(start + 499, #level) do keys[#keys + 1] = key_prefix .. 'r:' .. level[k] end
    for k, found in ipairs(redis.call('MGET', unpack(keys))) do
      local node = level[start + k - 1]
      if found then
        for _, target in ipairs(awaited_by(node, found)) do reach(target, node, following) end
      end
    end
  end
  seen = seen + #level
  level = following
end
if before[id] ~= nil then
  local way, node = { id }, before[id]
  while node do
    table.insert(way, 1, node)
    node = before[node]
  end
  return way
end

for start = first, #ARGV, 500 do
  local edges = {}
  for i = start, math.min(start + 499, #ARGV) do edges[#edges + 1] = entry .. ' ' .. ARGV[i] .. ' ' .. wait_token end
  redis.call('SADD', waits, unpack(edges))
end
redis.call('PEXPIRE', waits, ttl)
return {}
