-- For whom a job waits: a running one has said so here, one that waits for its parents has them in its message.
local function awaited_by(node, found)
  local state, ids = string.sub(found, 1, 1), {}
  if state == 'W' then
    local parents = redis.call('HGET', key_prefix .. 'm:' .. node, 'p') or ''
    for parent in string.gmatch(parents, '%S+') do ids[#ids + 1] = parent end
  elseif state == 'L' then
    local _, claim = parse(found)
    for _, edge in ipairs(redis.call('SMEMBERS', key_prefix .. 'b:' .. node)) do
      local by, target = string.match(edge, '^(%S+) (%S+)')
      if by == claim then ids[#ids + 1] = target end
    end
  end
  return ids
end
