-- What a listing or a purge must know of a stream: which of its entries wait, and which workers have.

-- Returns the entry up to which workers have read a stream: entries behind it wait. Nobody has read from a stream without a group.
local function last_read_entry(stream, group)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if groups['err'] then
    if string.find(groups['err'], 'no such key', 1, true) then return '0-0' end
    error(groups)
  end
  for _, info in ipairs(groups) do
    local fields = {}
    for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
    if fields['name'] == group then return fields['last-delivered-id'] end
  end
  return '0-0'
end

-- Returns the names of all streams of a queue, as records have them: of each level, executor and returned queue, and the last-attempt queue.
local function streams_of(key_prefix, queue)
  local names = { queue, queue .. '!' }
  for _, level in ipairs(redis.call('SMEMBERS', key_prefix .. KEY.LEVELS .. queue)) do names[#names + 1] = queue .. '^' .. level end
  return names
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
