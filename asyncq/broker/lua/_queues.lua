-- What a listing, a purge or the metrics must know of a stream: which of its entries wait, and which workers have.

-- Returns how many entries of a stream wait, how many workers have, and where those that wait begin, for XRANGE; no beginning of a stream
-- without entries. Entries are claimed in their order, and deleted when their jobs end. So what lies behind the last pending entry waits.
local function entries_of(stream, group)
  local length = redis.pcall('XLEN', stream) -- an error of a key that is no stream: others may write the names of levels
  if type(length) ~= 'number' or length == 0 then return 0, 0 end
  local pending = redis.pcall('XPENDING', stream, group)
  -- Nobody has read from a stream without a group.
  if pending['err'] and not string.find(pending['err'], 'NOGROUP', 1, true) then error(pending) end
  local held = pending[1] or 0
  if held == 0 then return length, 0, '-' end
  return math.max(0, length - held), held, '(' .. pending[3]
end
