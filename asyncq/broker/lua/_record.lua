-- So many bytes of entries are moved in one call, and the rest of the last one: a hundred jobs of a megabyte would hold the server for 0.2 s.
local ENOUGH_MOVED = 8 * 1024 * 1024

local function bytes_of(fields)
  local bytes = 0
  for _, field in ipairs(fields) do bytes = bytes + #field end
  return bytes
end

-- The record of a live job, taken apart: flags, entry id, queue, request id, and the reply channels with a space before each.
-- Of an ended one: flags, entry id, consumer, request id, and the outcome with a space before it. One that is no record of ours is like that of
-- an ended job which nobody can read: an error here would stop all others of the same call.
local function parse(record)
  local flags, ms, number, queue, request_id, rest = string.match(record, '^(....) (%d+)(%-?%d*) (%S+) (%S+)(.*)$')
  if flags and #ms < 20 and #number <= 20 then return flags, ms .. number, queue, request_id, rest end
  return '?---', '0', '-', '-', ''
end

-- Whether two request ids are of one call. What stands behind the `~` of a call that expires may have changed, see replace.
local function same_call(one, other)
  return one == other or string.match(one, '^[^~]*') == string.match(other, '^[^~]*')
end

-- One outcome as a notification carries it; above the limit only its name, and the reader fetches it.
local function frame(id, letter, outcome, push_limit)
  if #outcome > push_limit then return id .. ' ' .. letter .. ' -\n' end
  return id .. ' ' .. letter .. ' ' .. #outcome .. '\n' .. outcome
end

-- Tells the waiters of one job how it ended.
local function tell(channels, id, letter, outcome, push_limit)
  local framed = frame(id, letter, outcome, push_limit)
  for channel in string.gmatch(channels, '%S+') do redis.call('PUBLISH', channel, framed) end
end

-- Ends a job: its outcome, or for a job whose result nobody wants a tombstone. A tombstone keeps the request id for a minute, so that an
-- enqueue that is sent again late finds it and makes no second job.
local function store(key, flags, entry, consumer, request_id, letter, outcome, ttl)
  local wish = string.sub(flags, 3, 3)
  if wish == 'f' or wish == 'i' then
    redis.call('SET', key, 'T--- ' .. entry .. ' ' .. consumer .. ' ' .. request_id, 'PX', 60000)
  else
    redis.call('SET', key, letter .. '--- ' .. entry .. ' ' .. consumer .. ' ' .. request_id .. ' ' .. outcome, 'PX', ttl)
  end
end

-- Takes the signal of a job that has ended off what its holder is told.
local function clear_signal(signals, id)
  redis.call('HDEL', signals, id)
end

-- Who holds an entry: {entry, consumer, ms since delivery, count}, or nil. A stream without a group was never read from, so nobody does.
local function holder_of(stream, group, entry)
  local held = redis.pcall('XPENDING', stream, group, entry, entry, 1)
  if held['err'] then
    if string.find(held['err'], 'NOGROUP', 1, true) then return nil end
    error(held)
  end
  return held[1]
end

-- Whether a job has neither ended nor been forgotten: it has an entry (L), or waits for its time (D, R after a failure), for its turn (P) or
-- for other jobs (W).
local function is_live(flags)
  return string.find(flags, '^[LDRPW]') ~= nil
end

-- How a job stands: false if it is unknown or forgotten, its record if it has ended, else its flags, and after a space when it expires if
-- it does. With a channel, a live job's waiters are joined by it in the same step, so that no ending can fall between the look and the wait.
local function status_of(key, record, channel)
  local state = record and string.sub(record, 1, 1)
  if state == 'T' then return false end
  if not record or not is_live(record) then return record end
  local flags, entry, queue, request_id, channels = parse(record)
  if not is_live(flags) then return record end
  -- Nobody will be told of a result that is ignored, so nobody joins.
  if channel ~= '' and string.sub(flags, 3, 3) ~= 'i' and not string.find(channels .. ' ', ' ' .. channel .. ' ', 1, true) then
    local _, count = string.gsub(channels, '%S+', '')
    if count < 64 then
      redis.call('APPEND', key, ' ' .. channel)
    else
      -- Clients that died leave their channels behind. The oldest goes; if it still waits, its poll covers it.
      channels = string.gsub(channels, '^ %S+', '', 1) .. ' ' .. channel
      redis.call('SET', key, flags .. ' ' .. entry .. ' ' .. queue .. ' ' .. request_id .. channels)
    end
  end
  local expires = string.match(request_id, '~(%d+)$')
  return expires and flags .. ' ' .. expires or flags
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Puts a job aside until its time: its message under a key of its own, and a call to whoever promotes if it is now the first due.
local function delay(key, state, flags, queue, request_id, channels, id, fields, wait, messages, delayed, wake)
  local due = now_ms() + (tonumber(wait) or 0) -- by the server's clock alone
  redis.call('HSET', messages .. id, unpack(fields))
  redis.call('SET', key, state .. string.sub(flags, 2) .. ' 0 ' .. queue .. ' ' .. request_id .. channels)
  redis.call('ZADD', delayed, due, id)
  if redis.call('ZRANGE', delayed, 0, 0)[1] == id then redis.call('PUBLISH', wake, due) end
end

-- A level of priority has a stream of its own. Its first job makes it known: to whoever begins to read the queue, and at once to who does.
local function use_level(key_prefix, queue)
  if not string.find(queue, '^', 1, true) then return end
  local name, level = string.match(queue, '^(.-)%^(.+)$')
  if redis.call('SADD', key_prefix .. 'lv:' .. name, level) == 1 then redis.call('PUBLISH', key_prefix .. 'levels', queue) end
end

-- How many entries there are of a level of a queue: in its stream, and in the lines behind it.
local function waiting_in(stream)
  local line = string.find(stream, '^', 1, true) and stream or stream .. '^'
  return redis.call('XLEN', stream) + redis.call('XLEN', line .. 't') + redis.call('XLEN', line .. 'p')
end

-- Keeps a job with the dead letters: all fields of its entry, its queue, why it is there and how it ended. Old ones and too many go.
local function keep_dead(dead, fields, queue, reason, outcome, ttl, cap)
  local letter = { 'q', queue, 'why', reason, 'o', outcome }
  for _, part in ipairs(fields) do letter[#letter + 1] = part end
  redis.call('XADD', dead, '*', unpack(letter))
  redis.call('XTRIM', dead, 'MINID', string.format('%d', now_ms() - tonumber(ttl)))
  redis.call('XTRIM', dead, 'MAXLEN', cap)
  -- When nobody is buried any more, nothing is trimmed either: then the whole goes with its youngest.
  redis.call('PEXPIRE', dead, ttl)
end

-- An entry that is ours, but that its job's record does not name (any more): if it carries this job it is a leftover that nobody will ever
-- end, and goes. If it carries another (entry ids were given out twice after a flush), it is not ours to acknowledge.
local function drop_leftover(stream, group, consumer, entry, id)
  if not redis.call('XPENDING', stream, group, entry, entry, 1, consumer)[1] then return end
  local item = redis.call('XRANGE', stream, entry, entry)[1]
  if item and not (item[2][1] == 'i' and item[2][2] == id) then return end
  redis.call('XACK', stream, group, entry)
  redis.call('XDEL', stream, entry)
end
