-- Takes the jobs of a dead worker session back into the queue, up to a limit of jobs and of bytes. Its beat must still stand where the observer saw it stand
-- through a whole lease; the first call that finds it so removes the field, and with it any way back.
-- KEYS: stream beats beat_observations observations dead signals announced started last_attempt_queue
-- ARGV: key_prefix group consumer beat_seen max_entries max_crashes own_name push_limit ttl lost_outcome revoked_outcome dead_ttl dead_cap
-- RETURNS: {-1} if it beats after all, else {looked at, put back, revoked, next, {id, head of message} of each lost one ...}; next is 1: again
-- FLAGS: allow-oom
-- USES: record workflow observations
local beat = redis.call('HGET', beats, consumer)
if beat and beat ~= beat_seen then return { -1, 0, 0, 0 } end
local held = redis.call('XPENDING', stream, group, '-', '+', max_entries, consumer)
local entries, back, ended, gone, bytes = {}, 0, 0, {}, 0
local function content_of(id, fields, crashes)
  local content = { 'i', id, 'm', fields['m'], 'c', crashes, 'a', fields['a'] or 0 }
  for _, name in ipairs({ 'v', 'l' }) do
    if fields[name] then
      content[#content + 1] = name
      content[#content + 1] = fields[name]
    end
  end
  return content
end
if beat then
  redis.call('HDEL', beats, consumer)
  -- For a while it stays known as dead: whoever serves other streams of it need not see it stand still once more.
  redis.call('ZADD', beat_observations, -latest_observation(observations), consumer)
end
for _, item in ipairs(held) do
  if bytes >= ENOUGH_MOVED then break end
  local entry = item[1]
  entries[#entries + 1] = entry
  local fields = {}
  local content = redis.call('XRANGE', stream, entry, entry)[1]
  if content then
    bytes = bytes + bytes_of(content[2])
    for i = 1, #content[2], 2 do fields[content[2][i]] = content[2][i + 1] end
  end
  local id, message = fields['i'], fields['m']
  local record = id and message and redis.call('MGET', key_prefix .. 'r:' .. id)[1]
  local flags, named, queue, request_id, channels
  if record then flags, named, queue, request_id, channels = parse(record) end
  if named == entry and string.sub(flags, 1, 1) == 'L' then
    -- Nobody can tell which job did it, so the first death counts for each. Then only for those whose bodies had begun, see begin.
    local crashes = tonumber(fields['c']) or 0
    if crashes == 0 or redis.call('HMGET', started, entry .. ' ' .. id)[1] then crashes = crashes + 1 end
    local letter
    if string.sub(flags, 2, 2) ~= '-' then
      letter = 'C'
    elseif crashes >= tonumber(max_crashes) then
      letter = 'X'
    end
    if letter then
      local outcome = letter == 'X' and lost_outcome or revoked_outcome
      if letter == 'X' then
        keep_for_letter(id, flags, dead_ttl)
        keep_dead(dead, content_of(id, fields, crashes), queue, 'took its worker down', outcome, dead_ttl, dead_cap)
        gone[#gone + 1] = { id, string.sub(message, 1, 1024) }
      else
        ended = ended + 1
      end
      conclude(id, flags, entry, own_name, request_id, channels, letter, outcome, ttl, push_limit)
    else
      -- A death takes every job of that worker with it and nobody can tell which one did it: the last try runs where it can hurt
      -- no other.
      local target, name = stream, queue
      if crashes >= tonumber(max_crashes) - 1 and string.sub(queue, -1) ~= '!' then
        target, name = last_attempt_queue, string.match(queue, '^[^%^]*') .. '!'
      end
      local again = redis.call('XADD', target, '*', unpack(content_of(id, fields, crashes)))
      redis.call('SET', key_prefix .. 'r:' .. id, flags .. ' ' .. again .. ' ' .. name .. ' ' .. request_id .. channels)
      back = back + 1
    end
  end
end
if #entries > 0 then
  redis.call('XACK', stream, group, unpack(entries))
  redis.call('XDEL', stream, unpack(entries))
end
if #entries < tonumber(max_entries) and #entries == #held then
  -- Only here, where its pending list was seen to be empty: deleting a consumer drops what it holds for good.
  redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer)
  redis.call('DEL', signals, announced)
  return { #entries, back, ended, 0, unpack(gone) }
end
return { #entries, back, ended, 1, unpack(gone) }
