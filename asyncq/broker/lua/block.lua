-- Stores for which jobs a running job waits, and in the same step checks whether one of them waits for this job, itself or through others. An
-- edge counts only if it has the entry that its job's record names: other edges belong to attempts that crashed.
-- Caller: the deadlock guard of a task, before it waits.
-- Sent twice: adds the same members to a set.
-- KEYS: record waits
-- ARGV: key_prefix id entry wait_token ttl max_jobs (target)*
-- RETURNS: the ids on the path from a target to the job, if there is one: then nothing was stored. Else {}
-- FLAGS: allow-oom
-- USES: record waits
local own_record = redis.call('MGET', record)[1]
if not own_record then return {} end
local flags, current_entry = parse_record(own_record)
if not is_live(flags) or current_entry ~= entry then return {} end

-- Breadth first, so that the path is the shortest. Beyond `max_jobs` no cycle is found: other clients want their turn.
local came_from, level, seen = {}, {}, 0
local function reach(node, from, next_level)
  if came_from[node] == nil then
    came_from[node] = from
    next_level[#next_level + 1] = node
  end
end
for i = first, #ARGV do reach(ARGV[i], false, level) end
while #level > 0 and came_from[id] == nil and seen < tonumber(max_jobs) do
  local next_level = {}
  for first_of_batch = 1, #level, 500 do
    local keys = {}
    for k = first_of_batch, math.min(first_of_batch + 499, #level) do keys[#keys + 1] = key_prefix .. KEY.RECORDS .. level[k] end
    for k, node_record in ipairs(redis.call('MGET', unpack(keys))) do
      local node = level[first_of_batch + k - 1]
      if node_record then
        for _, target in ipairs(awaited_by(node, node_record)) do reach(target, node, next_level) end
      end
    end
  end
  seen = seen + #level
  level = next_level
end
if came_from[id] ~= nil then
  local path, node = { id }, came_from[id]
  while node do
    table.insert(path, 1, node)
    node = came_from[node]
  end
  return path
end

for first_of_batch = first, #ARGV, 500 do
  local edges = {}
  for i = first_of_batch, math.min(first_of_batch + 499, #ARGV) do edges[#edges + 1] = entry .. ' ' .. ARGV[i] .. ' ' .. wait_token end
  redis.call('SADD', waits, unpack(edges))
end
redis.call('PEXPIRE', waits, ttl)
return {}
