-- The fields of a record, and of the request id in it. The loader writes the body of a function of one line in the place of each call, for Lua
-- would make the function anew whenever the script is called. It replaces STATE.LIVE by 'L', and so on, see schema/script_constants.py.

-- The letter of the state. `record` may also be its flags alone.
local function state_of(record) return string.sub(record, 1, 1) end

-- The letter of the revocation signal.
local function signal_of(record) return string.sub(record, 2, 2) end

local function is_signalled(record) return string.sub(record, 2, 2) ~= SIGNAL.NONE end

-- Whether the result is ignored or to be forgotten.
local function wish_of(record) return string.sub(record, 3, 3) end

-- The three flags behind the state.
local function flags_of(flags) return string.sub(flags, 2) end

local function request_id_of(record) return string.match(record, '^.... %S+ %S+ (%S+)') end

-- The part of a request id that tells one call from another.
local function call_of(request_id) return string.match(request_id, '^[^' .. REQUEST.EXPIRES .. ']*') end

-- When the job expires, in ms; nil if it does not.
local function expires_of(request_id) return string.match(request_id, REQUEST.EXPIRES .. '(%d+)$') end

-- One call moves entries until they have so many bytes: a hundred jobs of a megabyte would hold up the server for 0.2 s.
local MAX_MOVED_BYTES = 8 * 1024 * 1024

-- Returns how many bytes the fields of an entry have.
local function count_bytes(fields)
  local bytes = 0
  for _, field in ipairs(fields) do bytes = bytes + #field end
  return bytes
end

-- Returns the fields of a record. Of a live job: flags, entry id, queue, request id, and the reply channels with a space before each. Of an
-- ended job: flags, entry id, consumer, request id, and the outcome with a space before it. A text that is no record of ours reads as that
-- of an ended job with unknown flags: an error here would stop all other jobs of the same call.
local function parse_record(record)
  local flags, ms, number, queue, request_id, rest = string.match(record, '^(....) (%d+)(%-?%d*) (%S+) (%S+)(.*)$')
  if flags and #ms < 20 and #number <= 20 then return flags, ms .. number, queue, request_id, rest end
  return '?' .. FLAGS.NONE, '0', '-', '-', ''
end

-- Returns whether two request ids belong to one call. The part from `~` on may differ, see replace.
local function same_call(one, other)
  return one == other or call_of(one) == call_of(other)
end

-- Returns one outcome as a notification carries it. If it is longer than the limit, only the id and the letter: the reader fetches it.
local function frame_outcome(id, letter, outcome, push_limit)
  if #outcome > push_limit then return id .. ' ' .. letter .. ' -\n' end
  return id .. ' ' .. letter .. ' ' .. #outcome .. '\n' .. outcome
end

-- Publishes the outcome of one job to its waiters.
local function notify(channels, id, letter, outcome, push_limit)
  local framed = frame_outcome(id, letter, outcome, push_limit)
  for channel in string.gmatch(channels, '%S+') do redis.call('PUBLISH', channel, framed) end
end

-- Stores the outcome of a job, or a tombstone if its result is ignored or forgotten. A tombstone keeps the request id for a minute, so that
-- an enqueue that is sent again late finds it and makes no second job.
local function store_outcome(key, flags, entry, consumer, request_id, letter, outcome, ttl)
  local wish = wish_of(flags)
  if wish == WISH.FORGOTTEN or wish == WISH.IGNORED then
    redis.call('SET', key, STATE.TOMBSTONE .. FLAGS.NONE .. ' ' .. entry .. ' ' .. consumer .. ' ' .. request_id, 'PX', 60000)
  else
    redis.call('SET', key, letter .. FLAGS.NONE .. ' ' .. entry .. ' ' .. consumer .. ' ' .. request_id .. ' ' .. outcome, 'PX', ttl)
  end
end

-- Removes the signal to a job that has ended, so that its worker's next beat does not bring it again.
local function clear_signal(signals, id)
  redis.call('HDEL', signals, id)
end

-- Returns who holds an entry: {entry, consumer, ms since delivery, count}, or nil. Nobody has read from a stream without a group.
local function holder_of(stream, group, entry)
  local pending = redis.pcall('XPENDING', stream, group, entry, entry, 1)
  if pending['err'] then
    if string.find(pending['err'], 'NOGROUP', 1, true) then return nil end
    error(pending)
  end
  return pending[1]
end

-- Returns whether a job has neither ended nor been forgotten: it has an entry (L), or waits for its time (D, R after a failure), is
-- deferred (P), or waits for other jobs (W).
local function is_live(flags)
  return string.find(flags, '^[' .. STATE.LIVE .. STATE.SCHEDULED .. STATE.RETRYING .. STATE.DEFERRED .. STATE.WAITING .. ']') ~= nil
end

-- Returns the status of a job: false if it is unknown or forgotten, its record if it has ended, else its flags, and if it expires a space
-- and the time. A channel is added to a live job's record in the same step, so no end can fall between the read and the wait.
local function status_of(key, record, channel)
  local state = record and state_of(record)
  if state == STATE.TOMBSTONE then return false end
  if not record or not is_live(record) then return record end
  local flags, entry, queue, request_id, channels = parse_record(record)
  if not is_live(flags) then return record end
  -- An ignored result is published to nobody, so no channel is added.
  if channel ~= '' and wish_of(flags) ~= WISH.IGNORED and not string.find(channels .. ' ', ' ' .. channel .. ' ', 1, true) then
    local _, count = string.gsub(channels, '%S+', '')
    if count < 64 then
      redis.call('APPEND', key, ' ' .. channel)
    else
      -- Clients that died leave their channels behind. The oldest is removed; if its client still waits, it finds the outcome by its poll.
      channels = string.gsub(channels, '^ %S+', '', 1) .. ' ' .. channel
      redis.call('SET', key, flags .. ' ' .. entry .. ' ' .. queue .. ' ' .. request_id .. channels)
    end
  end
  local expires = expires_of(request_id)
  return expires and flags .. ' ' .. expires or flags
end

-- Returns the time of the server's clock, in ms.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Delays a job: stores its message under a key of its own, and wakes the workers that promote if it is now the first to be due.
local function delay_job(key, state, flags, queue, request_id, channels, id, fields, wait, messages, delayed, wake)
  local due_at = now_ms() + (tonumber(wait) or 0) -- by the server's clock alone
  redis.call('HSET', messages .. id, unpack(fields))
  redis.call('SET', key, state .. flags_of(flags) .. ' 0 ' .. queue .. ' ' .. request_id .. channels)
  redis.call('ZADD', delayed, due_at, id)
  if redis.call('ZRANGE', delayed, 0, 0)[1] == id then redis.call('PUBLISH', wake, due_at) end
end

-- A level of priority, an executor queue and a returned queue have a stream of their own. The first job stores the name of that stream, for workers that
-- begin to read the queue, and publishes it to the workers that read the queue already.
local function use_level(key_prefix, queue)
  if not string.find(queue, '^', 1, true) then return end
  local name, level = string.match(queue, '^(.-)%^(.+)$')
  if redis.call('SADD', key_prefix .. KEY.LEVELS .. name, level) == 1 then redis.call('PUBLISH', key_prefix .. KEY.NEW_LEVELS, queue) end
end

-- Returns how many entries a level of a queue has: in its stream, in its returned queue, and in its executor queues.
local function queue_length(stream)
  local level = string.find(stream, '^', 1, true) and stream or stream .. '^'
  local length = redis.call('XLEN', stream)
  for _, letter in ipairs({ 'r', 't', 'p' }) do length = length + redis.call('XLEN', level .. letter) end
  return length
end

-- Stores a dead letter: all fields of the job's entry, its queue, the reason, and the outcome. Removes letters that are too old or too many.
local function add_dead_letter(dead, fields, queue, reason, outcome, ttl, cap)
  local content = { 'q', queue, 'why', reason, 'o', outcome }
  for _, part in ipairs(fields) do content[#content + 1] = part end
  redis.call('XADD', dead, '*', unpack(content))
  redis.call('XTRIM', dead, 'MINID', string.format('%d', now_ms() - tonumber(ttl)))
  redis.call('XTRIM', dead, 'MAXLEN', cap)
  -- Without new letters nothing is trimmed: then the whole stream expires with its youngest letter.
  redis.call('PEXPIRE', dead, ttl)
end

-- Removes an entry that is pending for this consumer but that its job's record does not name (any more). If the entry has this job's id, it
-- is a leftover that nobody will ever end. If it has another id (after a flush, entry ids are given out twice), it must stay.
local function drop_leftover(stream, group, consumer, entry, id)
  if not redis.call('XPENDING', stream, group, entry, entry, 1, consumer)[1] then return end
  local item = redis.call('XRANGE', stream, entry, entry)[1]
  if item and not (item[2][1] == 'i' and item[2][2] == id) then return end
  redis.call('XACK', stream, group, entry)
  redis.call('XDEL', stream, entry)
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
