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

-- How many bytes tell the length of a text, or hold a number, by the first byte of its msgpack form.
local LENGTHS = { [0xc4] = 1, [0xc5] = 2, [0xc6] = 4, [0xd9] = 1, [0xda] = 2, [0xdb] = 4 }
local NUMBERS = { [0xcc] = 1, [0xcd] = 2, [0xce] = 4, [0xcf] = 8 }

local function number_at(text, at, width)
  local number = 0
  for i = at, at + width - 1 do number = number * 256 + (string.byte(text, i) or 0) end
  return number
end

-- Returns the task of a message, and when the job was enqueued (ms); '' and 0 of a message that cannot be read. They are its second and sixth
-- field. `cmsgpack` of the server does not know the binary texts of msgpack.
local function call_in(message)
  local at, task, enqueued = 2, '', 0
  for k = 1, 6 do
    local kind = string.byte(message or '', at)
    if not kind then return '', 0 end
    local width = LENGTHS[kind] or NUMBERS[kind] or 0
    local value = width > 0 and number_at(message, at + 1, width) or kind
    at = at + 1 + width
    if LENGTHS[kind] or (kind >= 0xa0 and kind < 0xc0) then
      local length = width > 0 and value or kind - 0xa0
      if k == 2 then task = string.sub(message, at, at + length - 1) end
      at = at + length
    elseif not NUMBERS[kind] and kind >= 0x80 then
      return '', 0
    end
    enqueued = value
  end
  return task, enqueued
end
