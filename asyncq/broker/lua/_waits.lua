-- Returns the ids of the jobs that a job waits for. A running job has stored its waits as edges under `b:`; a job that has not started waits
-- for its parents, which are in its message. An edge counts only with the entry that the record names: other edges belong to attempts that
-- crashed.
local function awaited_by(id, record)
  local state, awaited = state_of(record), {}
  if state == STATE.WAITING then
    local parents = redis.call('HGET', key_prefix .. KEY.MESSAGES .. id, 'p') or ''
    for parent in string.gmatch(parents, '%S+') do awaited[#awaited + 1] = parent end
  elseif state == STATE.LIVE then
    local _, entry = parse_record(record)
    for _, edge in ipairs(redis.call('SMEMBERS', key_prefix .. KEY.BLOCKS .. id)) do
      local edge_entry, target = string.match(edge, '^(%S+) (%S+)')
      if edge_entry == entry then awaited[#awaited + 1] = target end
    end
  end
  return awaited
end
