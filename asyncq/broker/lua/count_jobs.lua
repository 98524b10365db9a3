-- Counts the jobs of some queues: those that wait, and those that workers have.
-- Caller: a client, for a listing of queues.
-- Sent twice: only reads.
-- ARGV: key_prefix group (queue)*
-- RETURNS: for each queue {how many wait, how many a worker has, ms that the first of those that wait has waited}
-- FLAGS: no-writes
-- USES: record queues
local counts, now = {}, now_ms()
for i = first, #ARGV do
  local waiting, running, oldest = 0, 0, nil
  for _, name in ipairs(streams_of(key_prefix, ARGV[i])) do
    local stream = key_prefix .. KEY.QUEUES .. name
    local length = redis.call('XLEN', stream)
    if length > 0 then
      local pending = redis.pcall('XPENDING', stream, group)
      if pending['err'] and not string.find(pending['err'], 'NOGROUP', 1, true) then error(pending) end
      local held = pending[1] or 0
      running, waiting = running + held, waiting + math.max(0, length - held)
      if length > held then
        local next_entry = redis.call('XRANGE', stream, '(' .. last_read_entry(stream, group), '+', 'COUNT', 1)[1]
        local at = next_entry and tonumber(string.match(next_entry[1], '^%d+'))
        if at and (not oldest or at < oldest) then oldest = at end
      end
    end
  end
  counts[#counts + 1] = { waiting, running, oldest and math.max(0, now - oldest) or 0 }
end
return counts
