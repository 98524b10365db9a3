-- Ends jobs: stores each outcome, acknowledges and deletes its entry, tells its waiters. The fence: an outcome counts only if the
-- entry is pending for this consumer and the record names this entry; anybody else is a zombie.
-- KEYS: stream
-- ARGV: key_prefix queue group consumer span push_limit signals_prefix (entry id request_id channel letter ttl outcome)*
-- RETURNS: the number of jobs if all were accepted, else for each: 1 accepted, 2 accepted before, 0 refused
-- FLAGS: allow-oom
-- USES: record workflow
-- RARELY: end_flagged settle_dependents
local own, listed = {}, false
local function pending(entry)
  if own[entry] ~= nil then return own[entry] end -- false: this very call ends it, and once is enough
  -- One ranged look for the whole batch, unless the worker holds so much that a look per job is cheaper (span 0). What the range
  -- did not list is asked for by itself before it is refused: entries the worker does not know of can push it out.
  if not listed and span ~= '0' then
    listed = true
    for _, item in ipairs(redis.call('XPENDING', stream, group, '-', '+', span, consumer)) do own[item[1]] = true end
    if own[entry] then return true end
  end
  return redis.call('XPENDING', stream, group, entry, entry, 1, consumer)[1] ~= nil
end

-- All reads come before the first write: a script that fails half-way keeps what it wrote.
local keys = {}
for i = first + 1, #ARGV, stride do keys[#keys + 1] = key_prefix .. 'r:' .. ARGV[i] end
local found = redis.call('MGET', unpack(keys))
local plan, answers, accepted, gone = {}, {}, 0, {}
for k, key in ipairs(keys) do
  local i = first + (k - 1) * stride
  local entry, id, request_id, channel = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local record = found[k]
  answers[k] = 0
  if record == 'L--- ' .. entry .. ' ' .. queue .. ' ' .. request_id .. ' ' .. channel then
    if pending(entry) then
      plan[#plan + 1] = { key, i, '----', request_id, channel }
      answers[k], own[entry] = 1, false
    end
  elseif record then
    local flags, named, by, mine, channels = parse(record)
    if named == entry and string.sub(flags, 1, 1) == 'L' then
      if pending(entry) then
        plan[#plan + 1] = { key, i, flags, mine, channels }
        answers[k], own[entry] = 1, false
      end
    elseif named == entry and by == consumer then
      answers[k] = 2
    end
  end
  if answers[k] ~= 1 and pending(entry) then
    -- No record, or one that does not name this entry, or that we have ended it, yet the entry is ours: if it carries this job it is a
    -- leftover that nobody will ever end (a call that was refused half-way leaves one: it may not acknowledge, say). If it carries
    -- another (entry ids were given out twice after a flush), it is not ours to acknowledge.
    local item = redis.call('XRANGE', stream, entry, entry)[1]
    if not item or (item[2][1] == 'i' and item[2][2] == id) then gone[#gone + 1] = entry end
  end
end

-- What is told to those that wait for all these jobs is bounded together, by `told`.
local notes, limit = {}, tonumber(push_limit)
for _, job in ipairs(plan) do
  local key, i, flags, request_id, channels = job[1], job[2], job[3], job[4], job[5]
  local id, letter, ttl, outcome = ARGV[i + 1], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6]
  gone[#gone + 1] = ARGV[i]
  accepted = accepted + 1
  if flags == '----' then
    redis.call('SET', key, letter .. '--- ' .. ARGV[i] .. ' ' .. consumer .. ' ' .. request_id .. ' ' .. outcome, 'PX', ttl)
  else
    end_flagged(id, flags, ARGV[i], consumer, request_id, letter, outcome, ttl, signals_prefix .. consumer)
  end
  local framed = frame(id, letter, outcome, limit)
  if flags ~= '----' and is_awaited(flags) then settle_dependents(id, request_id, letter, outcome, limit) end
  for channel in string.gmatch(channels, '%S+') do
    local note = notes[channel]
    if note then note[#note + 1] = framed else notes[channel] = { framed } end
  end
end
if #gone > 0 then
  redis.call('XACK', stream, group, unpack(gone))
  redis.call('XDEL', stream, unpack(gone))
end
for channel, note in pairs(notes) do redis.call('PUBLISH', channel, table.concat(note)) end
if accepted == #keys then return accepted end
return answers
