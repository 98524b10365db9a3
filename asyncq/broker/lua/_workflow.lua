-- What the end of a job does to the jobs that wait for it. For scripts with an argument `space`, the beginning of every key.

-- Most bytes of values that one job is given. Above it the worker fails the job: a thousand values of a megabyte would be a string that
-- no server takes.
local MOST_VALUES = 16 * 1024 * 1024

-- Most bytes of the outcome of a job that did not succeed, as each gets it that waited for it.
local MOST_WORDS = 8192

-- A value above so many bytes, for which several jobs wait, is kept once for all of them. What is shorter stands in the entry of each.
local MOST_COPIED = 1024

-- So many jobs are told of ends in one call: ten thousand would hold the server for a second. The others are put aside, see tell_later.
local MOST_TOLD = 250
local told = 0

-- Whether others wait for the end of a job, by its flags.
local function is_awaited(flags)
  return string.find(flags, '[db]', 4) ~= nil
end

-- Whether a job needs values that are kept once for several, by its flags.
local function needs_kept(flags)
  return string.find(flags, '[hb]', 4) ~= nil
end

-- Keeps the value of an ended job, once, for one more job that waited for it. The flags of that one from now on.
local function keep_for(child, flags, job)
  flags = string.sub(flags, 1, 3) .. (is_awaited(flags) and 'b' or 'h')
  redis.call('SADD', space .. 'hn:' .. child, job.name)
  redis.call('SETRANGE', space .. 'r:' .. child, 3, string.sub(flags, 4))
  if redis.call('HINCRBY', space .. 'h:' .. job.name, 'n', 1) == 1 then redis.call('HSET', space .. 'h:' .. job.name, 'o', job.words) end
  return flags
end

-- The values that a job with a dead letter needs stay as long as the letter may: it may be sent again.
local function keep_for_letter(id, flags, ttl)
  if not needs_kept(flags) then return end
  for _, name in ipairs(redis.call('SMEMBERS', space .. 'hn:' .. id)) do redis.pcall('HSET', space .. 'h:' .. name, 'd', ttl) end
end

-- One less needs a value that is kept: the last deletes it. A count that is damaged stops nobody: such a value stays for a week.
local function count_down(key)
  local left = redis.pcall('HINCRBY', key, 'n', -1)
  if type(left) ~= 'number' then
    redis.call('PEXPIRE', key, 604800000) -- nobody can tell who needs it
  elseif left <= 0 then
    local ttl = string.match(redis.call('HMGET', key, 'd')[1] or '', '^%d+$')
    if ttl and #ttl < 16 then redis.call('PEXPIRE', key, ttl) else redis.call('DEL', key) end
  end
end

-- A job has ended, or a workflow takes its place: it needs no values any more. What a job needs is deleted in the step in which it is counted,
-- so none is counted twice.
local function let_kept_go(id, flags)
  if not needs_kept(flags) then return end
  local names = redis.pcall('SMEMBERS', space .. 'hn:' .. id)
  redis.call('DEL', space .. 'hn:' .. id)
  for _, name in ipairs(names['err'] and {} or names) do count_down(space .. 'h:' .. name) end
end

-- A job that waited for others may start now: its message goes into its queue with what they returned, or waits for its own time.
local function set_free(id, flags, queue, request_id, channels)
  local fields, message = {}, space .. 'm:' .. id
  local content = redis.call('HGETALL', message)
  for i = 1, #content, 2 do fields[content[i]] = content[i + 1] end
  local values, entry = {}, { 'm', fields['m'] }
  for _ in string.gmatch(fields['p'], '%S+') do values[#values + 1] = fields['v' .. #values] end
  if #values > 0 then
    entry[#entry + 1] = 'v'
    entry[#entry + 1] = tonumber(fields['s']) > MOST_VALUES and '!' or table.concat(values)
  end
  redis.call('DEL', message)
  if fields['w'] then
    delay(space .. 'r:' .. id, 'D', flags, queue, request_id, channels, id, entry, fields['w'], space .. 'm:', space .. 'd', space .. 'wake')
    return
  end
  use_level(space, queue)
  local added = redis.call('XADD', space .. 'q:' .. queue, '*', 'i', id, unpack(entry))
  redis.call('SET', space .. 'r:' .. id, 'L' .. string.sub(flags, 2) .. ' ' .. added .. ' ' .. queue .. ' ' .. request_id .. channels)
end

-- A job that has ended, for those that wait for it. `is_inherited`: it never began. `name`: of its value, where that is kept once for several.
local function ended_job(id, request_id, how, words, is_inherited)
  request_id = string.match(request_id, '^[^~]*')
  return { id = id, request_id = request_id, name = id .. ':' .. request_id, how = how, words = words, is_inherited = is_inherited }
end

-- Tells a job that waits how one of its parents ended: it may be free now, or ends, too. What those that wait for it have to be told then.
-- `job` is the parent; how it ended, and with what, may be another thing to this one, see hand_down.
local function inherit(child, place, call, job, how, words, push_limit)
  local key, message = space .. 'r:' .. child, space .. 'm:' .. child
  local record = redis.call('MGET', key)[1]
  if not record or string.sub(record, 1, 1) ~= 'W' then return nil end
  local flags, _, queue, request_id, channels = parse(record)
  -- The child may have been revoked long ago, and its id be that of another job that waits by now.
  if not same_call(request_id, call) then return nil end
  local about = redis.call('HMGET', message, 'k', 't', 'p', 'r')
  if not about[2] then return nil end -- somebody deleted its message: it can be revoked, and its parent must end all the same
  local is_callback, well = place == 'e', how == 'S'
  if is_callback and not well then
    -- The first failure counts. It is told of the last of those that it waits for: the one that stands for all of them.
    if about[1] then
      local told = string.match(about[3], '%S+$')
      if told ~= job.id and string.sub(words, 1, 1) ~= '^' then words = '^' .. job.id .. ' ' .. words end
      redis.call('HSET', message, 's', #words, 'v0', frame(told, how, words, math.huge))
    end
    set_free(child, flags, queue, request_id, channels)
    return nil
  end
  if well then
    if about[1] and not is_callback then
      local fits = redis.call('HINCRBY', message, 's', #words) <= MOST_VALUES
      local framed = ''
      if fits and job.is_kept_once then
        flags = keep_for(child, flags, job)
        framed = job.id .. ' ' .. how .. ' @' .. job.request_id .. '\n'
      elseif fits then
        framed = frame(job.id, how, words, math.huge)
      end
      redis.call('HSET', message, 'v' .. place, framed)
    end
    local is_last = redis.call('HINCRBY', message, 'n', -1) <= 0
    if is_last and not is_callback then set_free(child, flags, queue, request_id, channels) end
    if not (is_last and is_callback) then return nil end
  end
  local fate, last = how, words
  if well then
    fate, last, flags = 'C', '', '--i' .. string.sub(flags, 4) -- nothing failed: nobody will ever ask for it
  elseif string.sub(words, 1, 1) ~= '^' then
    last = '^' .. job.id .. ' ' .. words
  end
  redis.call('DEL', message)
  let_kept_go(child, flags)
  store(key, flags, '0', '-', request_id, fate, last, about[2])
  tell(channels, child, fate, last, push_limit)
  -- One in whose place the workflow stands has begun, so that its failure is its own.
  return is_awaited(flags) and ended_job(child, request_id, fate, last, not about[4]) or nil
end

-- Ends a job that waits, and whose message is damaged, as failed. Without an outcome: who reads it says what is wrong. What those that wait
-- for it have to be told then.
local function give_up(child, call, push_limit)
  local key = space .. 'r:' .. child
  local record = redis.call('MGET', key)[1]
  if not record or string.sub(record, 1, 1) ~= 'W' then return nil end
  local flags, _, _, request_id, channels = parse(record)
  if not same_call(request_id, call) then return nil end
  redis.call('DEL', space .. 'm:' .. child)
  let_kept_go(child, flags)
  store(key, flags, '0', '-', request_id, 'F', '', 3600000) -- how long its result is kept stood in the message
  tell(channels, child, 'F', '', push_limit)
  return is_awaited(flags) and ended_job(child, request_id, 'F', '') or nil
end

-- Puts those aside that wait for an ended job and are too many for one call: their edges, the outcome for them, and a member among the
-- delayed jobs, due at once, so that whoever moves these goes on, see go_on. A space in front of it: no id of a job begins with one.
local function tell_later(job, edges)
  for at = 1, #edges, MOST_TOLD do
    local some = table.concat(edges, '\n', at, math.min(at + MOST_TOLD - 1, #edges))
    redis.call('XADD', space .. 'rest:' .. job.name, '*', 'c', some)
  end
  local kept = space .. 'h:' .. job.name
  redis.call('HINCRBY', kept, 'n', 1)
  redis.call('HSET', kept, 'o', job.words, 'w', job.how, 'i', job.is_inherited and '1' or '')
  redis.call('ZADD', space .. 'd', 0, ' ' .. job.name)
  redis.call('PUBLISH', space .. 'wake', '0')
end

-- Tells those that wait for an ended job and lie here; for those in other shards it leaves word in the outbox, in this same step, one entry
-- for all of a shard that are told the same. Appends the ends that follow to `ended`.
-- Who waits stands in an edge: the ended job's place among its parents, or `e` if it waits for their failure; its request id; and its shard if that
-- is another. `waiting` has the id of each that waits, and behind it the edge.
local function hand_down(job, waiting, push_limit, ended)
  local near, far, later, takers, room = {}, {}, {}, 0, MOST_TOLD - told
  for i = 1, #waiting, 2 do
    local child, edge = waiting[i], waiting[i + 1]
    local place, call, shard
    if #near < room or not string.find(edge, '^%S+ %S+$') then place, call, shard = string.match(edge, '^(%S+) (%S+) ?(%S*)$') end
    if place then
      local how, words = job.how, job.words
      -- A failure calls the callbacks of the job that failed. To all others nothing has happened: nor to any, where a job was revoked or expired.
      if place == 'e' and (job.is_inherited or (how ~= 'F' and how ~= 'X')) then how, words = 'S', '' end
      if shard == '' then
        near[#near + 1] = { child, place, call, how, words }
        if place ~= 'e' then takers = takers + 1 end
      else
        local group = shard .. how .. (words == '' and '-' or '') -- a callback that is not called gets none of the value
        far[group] = far[group] or { shard, how, words, {} }
        table.insert(far[group][4], child .. ' ' .. place .. ' ' .. call)
      end
    elseif #near >= room then
      later[#later + 1] = child .. ' ' .. edge -- also one that is no edge of ours: it is passed over then
    end
  end
  for _, group in pairs(far) do
    redis.call('XADD', space .. 'out', '*', 'to', group[1], 'c', table.concat(group[4], '\n'), 'p', job.id, 'n', job.request_id, 'h', group[2], 'w', group[3])
  end
  job.is_kept_once = takers > 1 and job.how == 'S' and #job.words > MOST_COPIED
  told = told + #near
  if #later > 0 then tell_later(job, later) end
  for _, one in ipairs(near) do
    -- The message of one that waits may be damaged. That must not keep the ended job, and the others that wait for it, from their end.
    local is_whole, further = pcall(inherit, one[1], one[2], one[3], job, one[4], one[5], push_limit)
    if not is_whole then further = give_up(one[1], one[3], push_limit) end
    ended[#ended + 1] = further
  end
end

-- Who waits for a job, one a line: its id, and the edge to it.
local EACH_EDGE = '(%S+) ([^\n]+)'

-- The same as hand_down takes it.
local function edges_in(text)
  local waiting = {}
  for child, edge in string.gmatch(text, EACH_EDGE) do
    waiting[#waiting + 1] = child
    waiting[#waiting + 1] = edge
  end
  return waiting
end

-- Tells the jobs that wait for ended ones. One that waited for its value may be free now; one that cannot have it any more ends in the
-- same way and with the same outcome, marked with the member that it came from, and so do those that wait for that one.
local function settle(ended, push_limit)
  local at = 1
  while ended[at] do
    local job = ended[at]
    at = at + 1
    local waiting = redis.pcall('HGETALL', space .. 'dep:' .. job.id)
    if waiting['err'] then waiting = {} end -- no hash of ours
    redis.call('DEL', space .. 'dep:' .. job.id)
    hand_down(job, waiting, push_limit, ended)
  end
end

-- Goes on with those that were put aside, unless this call has told so many that it may not tell these, too. Without the outcome, which
-- somebody has deleted, they fail.
local function go_on(name, push_limit)
  local key, kept = space .. 'rest:' .. name, space .. 'h:' .. name
  local some = redis.call('XRANGE', key, '-', '+', 'COUNT', 2)
  local waiting, ended = some[1] and edges_in(some[1][2][2]) or {}, {}
  if told > 0 and told + #waiting / 2 > MOST_TOLD then return end
  local about = redis.call('HMGET', kept, 'o', 'w', 'i')
  if some[1] then redis.call('XDEL', key, some[1][1]) end
  if about[1] and about[2] then
    local id, request_id = string.match(name, '^(.*):([^:]*)$')
    hand_down(ended_job(id, request_id, about[2], about[1], about[3] == '1'), waiting, push_limit, ended)
  else
    for i = 1, #waiting, 2 do ended[#ended + 1] = give_up(waiting[i], string.match(waiting[i + 1], '%S*$'), push_limit) end
  end
  if not some[2] then
    redis.call('DEL', key)
    redis.call('ZREM', space .. 'd', ' ' .. name)
    count_down(kept) -- now, for those that were just told may be the only ones that need the value
  end
  settle(ended, push_limit)
end

-- What of an outcome is handed on. Of a long one of a job that did not succeed only the short form that stands in front of it: each of
-- those that cannot have a value any more keeps it.
local function handed_on(how, outcome)
  if how == 'S' or #outcome <= MOST_WORDS then return outcome end
  local length, from = string.match(outcome, '^~(%d%d?%d?%d?) ()')
  return length and string.sub(outcome, from, from + length - 1) or ''
end

local function settle_dependents(id, request_id, letter, outcome, push_limit)
  settle({ ended_job(id, request_id, letter, handed_on(letter, outcome)) }, push_limit)
end

-- The fence: flags, queue, request id and channels of a live job whose record names this entry, if the entry is pending for this consumer; else
-- nil, and what is left over of the job under that entry is cleared away.
local function claimed(key, stream, group, consumer, entry, id)
  local record = redis.call('MGET', key)[1]
  local held = redis.call('XPENDING', stream, group, entry, entry, 1, consumer)[1]
  local flags, named, queue, request_id, channels
  if record then flags, named, queue, request_id, channels = parse(record) end
  if held and named == entry and string.sub(flags, 1, 1) == 'L' then return flags, queue, request_id, channels end
  if named ~= entry then drop_leftover(stream, group, consumer, entry, id) end
  return nil
end

-- What a job said of itself and yielded ends with its result, or with the tombstone of one that was to be forgotten.
local function let_items_go(id, flags, ttl)
  if string.sub(flags, 3, 3) == 'f' then
    for _, kind in ipairs({ 'e:', 's:', 'sp:' }) do redis.call('PEXPIRE', space .. kind .. id, 60000) end
  elseif ttl then
    redis.call('PEXPIRE', space .. 's:' .. id, ttl)
  end
end

-- Ends a job about which there is something special. Its waiters and those that wait for it are not told yet.
local function end_flagged(id, flags, entry, consumer, request_id, letter, outcome, ttl, marked)
  store(space .. 'r:' .. id, flags, entry, consumer, request_id, letter, outcome, ttl)
  let_items_go(id, flags)
  let_kept_go(id, flags)
  if string.sub(flags, 2, 2) ~= '-' then unmark(marked, id) end
end

-- Ends a job: its outcome, its waiters, and the jobs that wait for it, in one step.
local function conclude(id, flags, entry, consumer, request_id, channels, letter, outcome, ttl, push_limit)
  store(space .. 'r:' .. id, flags, entry, consumer, request_id, letter, outcome, ttl)
  let_items_go(id, flags, ttl) -- also when its worker died
  let_kept_go(id, flags)
  tell(channels, id, letter, outcome, tonumber(push_limit))
  if is_awaited(flags) then settle_dependents(id, request_id, letter, outcome, tonumber(push_limit)) end
end

-- Where it is kept that an id stood for a call before.
local function place_of_call(id, request_id)
  return space .. 'u:' .. id .. ':' .. string.match(request_id, '^[^~]*')
end

-- Whether an id stood for this call before, in the last minute: then it is sent again, late.
local function was_there(id, request_id)
  return redis.call('MGET', place_of_call(id, request_id))[1] ~= false
end

-- The tombstone of a call goes, for another comes under its id. Its request id is kept as long as the tombstone would have stood, and what its job
-- said and yielded is not the other's.
local function make_room(id, request_id)
  redis.call('SET', place_of_call(id, request_id), '', 'PX', 60000)
  redis.call('DEL', space .. 'e:' .. id, space .. 's:' .. id, space .. 'sp:' .. id)
end

-- Whether a call may have an id: `free`, `taken`, or `again` if it has had it already. Of a tombstone that makes room also its request id.
local function claim_to(id, request_id)
  local record = redis.call('MGET', space .. 'r:' .. id)[1]
  if not record then return 'free' end
  local known = string.match(record, '^.... %S+ %S+ (%S+)') or ''
  if same_call(known, request_id) or was_there(id, request_id) then return 'again' end
  if string.sub(record, 1, 1) ~= 'T' then return 'taken' end
  return 'free', known
end

-- The ids among the given jobs that cannot be accepted, for another job has them, or one before in the same call; whether one of the
-- jobs is there already under its own request id, which means that this call was sent before; and the request ids of tombstones that make room, by id.
local function taken_among(first, stride, own)
  local taken, seen, left = {}, {}, {}
  if own then seen[own] = true end
  for i = first, #ARGV, stride do
    local id = ARGV[i]
    local claim, request_id = claim_to(id, ARGV[i + 2])
    if claim == 'again' then return taken, true, left end
    if claim == 'taken' or seen[id] then taken[#taken + 1] = id end
    seen[id], left[id] = true, request_id
  end
  return taken, false, left
end

-- Accepts a job of a workflow: into its queue, for its time, or to wait for its parents. Who waits for it stands in its dependents; those
-- of the last job of a replacement are there already, and `replaces` says that it is that one.
local function admit(id, queue, request_id, flags, wait, ttl, parents, dependents, keeps, message, channels, replaces)
  local key = space .. 'r:' .. id
  for child, edge in string.gmatch(dependents, EACH_EDGE) do redis.call('HSET', space .. 'dep:' .. id, child, edge) end
  if parents == '' then
    if wait == '' then
      use_level(space, queue)
      local entry = redis.call('XADD', space .. 'q:' .. queue, '*', 'i', id, 'm', message)
      redis.call('SET', key, 'L' .. flags .. ' ' .. entry .. ' ' .. queue .. ' ' .. request_id .. channels)
    else
      delay(key, 'D', 'D' .. flags, queue, request_id, channels, id, { 'm', message }, wait, space .. 'm:', space .. 'd', space .. 'wake')
    end
    return
  end
  local _, count = string.gsub(parents, '%S+', '')
  local fields = { 'm', message, 'p', parents, 't', ttl }
  for name, value in pairs({ n = count, w = wait, k = keeps, r = replaces }) do
    if value ~= '' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  redis.call('HSET', space .. 'm:' .. id, unpack(fields))
  redis.call('SET', key, 'W' .. flags .. ' 0 ' .. queue .. ' ' .. request_id .. channels)
end

-- Accepts the job whose arguments begin at a place. Nobody is told of a result that is ignored.
local function admit_at(i, channel)
  local flags = ARGV[i + 3]
  local channels = string.sub(flags, 2, 2) == 'i' and ' ' or ' ' .. channel
  admit(ARGV[i], ARGV[i + 1], ARGV[i + 2], flags, ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7], ARGV[i + 8], ARGV[i + 9], channels, '')
end

-- Accepts the given jobs, and leaves word of those that lie in other shards.
local function admit_all(first, stride, channel, batches, left)
  for id, request_id in pairs(left) do make_room(id, request_id) end
  for i = first, #ARGV, stride do admit_at(i, channel) end
  if batches == '' then return end
  for _, batch in ipairs(cmsgpack.unpack(batches)) do
    redis.call('XADD', space .. 'out', '*', 'to', batch[1], 'b', batch[2])
  end
end
