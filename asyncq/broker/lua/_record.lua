-- The record of a live job, taken apart: flags, entry id, queue, nonce, and the reply channels with a space before each.
-- Of an ended one: flags, entry id, consumer, nonce, and the outcome with a space before it.
local function parse(record)
  return string.match(record, '^(....) (%S+) (%S+) (%S+)(.*)$')
end

-- Tells the waiters of one job how it ended.
local function tell(channels, id, letter, outcome, push_limit)
  local framed
  if #outcome > push_limit then
    framed = id .. ' ' .. letter .. ' -\n'
  else
    framed = id .. ' ' .. letter .. ' ' .. #outcome .. '\n' .. outcome
  end
  for channel in string.gmatch(channels, '%S+') do redis.call('PUBLISH', channel, framed) end
end

-- Ends a job: its outcome, or for a job whose result nobody wants a tombstone. A tombstone keeps the nonce for a minute, so that an
-- enqueue that is sent again late finds it and makes no second job.
local function store(key, flags, entry, consumer, nonce, letter, outcome, ttl)
  local wish = string.sub(flags, 3, 3)
  if wish == 'f' or wish == 'i' then
    redis.call('SET', key, 'T--- ' .. entry .. ' ' .. consumer .. ' ' .. nonce, 'PX', 60000)
  else
    redis.call('SET', key, letter .. '--- ' .. entry .. ' ' .. consumer .. ' ' .. nonce .. ' ' .. outcome, 'PX', ttl)
  end
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
