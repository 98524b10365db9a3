-- What the end of a job does to the jobs that wait for it. For scripts that have an argument `space`: the prefix of every key.

-- The most bytes of values that one job is given. If its values are longer, the worker fails the job: a thousand values of a megabyte would
-- be a string that no server takes.
local MOST_VALUES = 16 * 1024 * 1024

-- The most bytes of a failure (or any other end that is no success) that a waiting job is given.
local MOST_WORDS = 8192

-- A longer value for which several jobs wait is stored once for all of them. A shorter value is copied into the entry of each job.
local MOST_COPIED = 1024

-- One call delivers the ends of jobs to at most so many waiting jobs: ten thousand would hold up the server for a second. tell_later stores
-- the others.
local MOST_TOLD = 250
local told = 0

-- Returns whether other jobs wait for the end of a job with these flags.
local function is_awaited(flags)
  return string.find(flags, '[db]', 4) ~= nil
end

-- Returns whether a job with these flags needs values that are stored once for several jobs.
local function needs_kept(flags)
  return string.find(flags, '[hb]', 4) ~= nil
end

-- Stores the value of an ended job once, and counts one more job that needs it. Returns the new flags of that job.
local function keep_for(child, flags, job)
  flags = string.sub(flags, 1, 3) .. (is_awaited(flags) and 'b' or 'h')
  redis.call('SADD', key_prefix .. 'hn:' .. child, job.name)
  redis.call('SETRANGE', key_prefix .. 'r:' .. child, 3, string.sub(flags, 4))
  if redis.call('HINCRBY', key_prefix .. 'h:' .. job.name, 'n', 1) == 1 then redis.call('HSET', key_prefix .. 'h:' .. job.name, 'o', job.words) end
  return flags
end

-- A job with a dead letter may be sent again, so the values that it needs stay as long as the letter may stay.
local function keep_for_letter(id, flags, ttl)
  if not needs_kept(flags) then return end
  for _, name in ipairs(redis.call('SMEMBERS', key_prefix .. 'hn:' .. id)) do redis.pcall('HSET', key_prefix .. 'h:' .. name, 'd', ttl) end
end

-- One job less needs a stored value. The last one deletes it. If the count is damaged, the value stays for a week.
local function count_down(key)
  local left = redis.pcall('HINCRBY', key, 'n', -1)
  if type(left) ~= 'number' then
    redis.call('PEXPIRE', key, 604800000) -- nobody can know which jobs need it
  elseif left <= 0 then
    local ttl = string.match(redis.call('HMGET', key, 'd')[1] or '', '^%d+$')
    if ttl and #ttl < 16 then redis.call('PEXPIRE', key, ttl) else redis.call('DEL', key) end
  end
end

-- A job has ended, or a workflow takes its place, so it needs no values any more. Its list of values is deleted in the same step in which the
-- values are counted down, so no value is counted down twice.
local function let_kept_go(id, flags)
  if not needs_kept(flags) then return end
  local names = redis.pcall('SMEMBERS', key_prefix .. 'hn:' .. id)
  redis.call('DEL', key_prefix .. 'hn:' .. id)
  for _, name in ipairs(names['err'] and {} or names) do count_down(key_prefix .. 'h:' .. name) end
end

-- A job that waited for other jobs may start: its message and their values become an entry of its queue, or wait for the time of the job.
local function set_free(id, flags, queue, request_id, channels)
  local fields, message = {}, key_prefix .. 'm:' .. id
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
    delay(key_prefix .. 'r:' .. id, 'D', flags, queue, request_id, channels, id, entry, fields['w'], key_prefix .. 'm:', key_prefix .. 'd', key_prefix .. 'wake')
    return
  end
  use_level(key_prefix, queue)
  local added = redis.call('XADD', key_prefix .. 'q:' .. queue, '*', 'i', id, unpack(entry))
  redis.call('SET', key_prefix .. 'r:' .. id, 'L' .. string.sub(flags, 2) .. ' ' .. added .. ' ' .. queue .. ' ' .. request_id .. channels)
end

-- An ended job, as the functions below take it. `is_inherited`: its body never began. `name`: of its value, if that is stored once for several
-- jobs.
local function ended_job(id, request_id, how, words, is_inherited)
  request_id = string.match(request_id, '^[^~]*')
  return { id = id, request_id = request_id, name = id .. ':' .. request_id, how = how, words = words, is_inherited = is_inherited }
end

-- Delivers the end of one parent to a job that waits: that job may start now, or ends too. Returns the job as an ended job if others wait for
-- its end, else nil. `job` is the parent. `how` and `words` are what this child is given, which may differ from the parent's own end, see hand_down.
local function inherit(child, place, call, job, how, words, push_limit)
  local key, message = key_prefix .. 'r:' .. child, key_prefix .. 'm:' .. child
  local record = redis.call('MGET', key)[1]
  if not record or string.sub(record, 1, 1) ~= 'W' then return nil end
  local flags, _, queue, request_id, channels = parse(record)
  -- The child may have been revoked long ago, and another job that waits may have its id by now.
  if not same_call(request_id, call) then return nil end
  local about = redis.call('HMGET', message, 'k', 't', 'p', 'r')
  if not about[2] then return nil end -- somebody deleted the message of the child; a client can revoke the child, and the parent must end all the same
  local is_callback, well = place == 'e', how == 'S'
  if is_callback and not well then
    -- Only the first failure counts. It is delivered in the name of the last parent, which stands for the whole chain or group.
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
    fate, last, flags = 'C', '', '--i' .. string.sub(flags, 4) -- nothing failed, so nobody will ever ask for its result
  elseif string.sub(words, 1, 1) ~= '^' then
    last = '^' .. job.id .. ' ' .. words
  end
  redis.call('DEL', message)
  let_kept_go(child, flags)
  store(key, flags, '0', '-', request_id, fate, last, about[2])
  tell(channels, child, fate, last, push_limit)
  -- A job that a workflow replaced has begun, so this is a failure of its own, and not an inherited one.
  return is_awaited(flags) and ended_job(child, request_id, fate, last, not about[4]) or nil
end

-- Ends a waiting job whose message is damaged as failed, and without an outcome: the reader says what is wrong. Returns as `inherit`.
local function give_up(child, call, push_limit)
  local key = key_prefix .. 'r:' .. child
  local record = redis.call('MGET', key)[1]
  if not record or string.sub(record, 1, 1) ~= 'W' then return nil end
  local flags, _, _, request_id, channels = parse(record)
  if not same_call(request_id, call) then return nil end
  redis.call('DEL', key_prefix .. 'm:' .. child)
  let_kept_go(child, flags)
  store(key, flags, '0', '-', request_id, 'F', '', 3600000) -- the time of its result stood in the damaged message
  tell(channels, child, 'F', '', push_limit)
  return is_awaited(flags) and ended_job(child, request_id, 'F', '') or nil
end

-- Stores the waiting jobs that are too many for one call: their edges, the outcome for them, and a member of the delayed jobs that is due at
-- once, so the next `promote` continues with go_on. The member begins with a space, which no job id does.
local function tell_later(job, edges)
  for at = 1, #edges, MOST_TOLD do
    local some = table.concat(edges, '\n', at, math.min(at + MOST_TOLD - 1, #edges))
    redis.call('XADD', key_prefix .. 'rest:' .. job.name, '*', 'c', some)
  end
  local kept = key_prefix .. 'h:' .. job.name
  redis.call('HINCRBY', kept, 'n', 1)
  redis.call('HSET', kept, 'o', job.words, 'w', job.how, 'i', job.is_inherited and '1' or '')
  redis.call('ZADD', key_prefix .. 'd', 0, ' ' .. job.name)
  redis.call('PUBLISH', key_prefix .. 'wake', '0')
end

-- Delivers the end of a job to the waiting jobs of this shard. For waiting jobs of other shards it adds entries to the outbox in the same
-- step: one entry for all jobs of a shard that are given the same. Appends to `ended` the jobs that end by this.
-- `waiting` is a flat list of the id of each waiting job and its edge: the index of the ended job among its parents (or `e` if it waits for
-- their failure), its request id, and its shard if that is another one.
local function hand_down(job, waiting, push_limit, ended)
  local near, far, later, takers, room = {}, {}, {}, 0, MOST_TOLD - told
  for i = 1, #waiting, 2 do
    local child, edge = waiting[i], waiting[i + 1]
    local place, call, shard
    if #near < room or not string.find(edge, '^%S+ %S+$') then place, call, shard = string.match(edge, '^(%S+) (%S+) ?(%S*)$') end
    if place then
      local how, words = job.how, job.words
      -- A failure calls the callbacks of the job that failed, and no others. A revoked or expired job calls none.
      if place == 'e' and (job.is_inherited or (how ~= 'F' and how ~= 'X')) then how, words = 'S', '' end
      if shard == '' then
        near[#near + 1] = { child, place, call, how, words }
        if place ~= 'e' then takers = takers + 1 end
      else
        local group = shard .. how .. (words == '' and '-' or '') -- a callback that is not called gets no value
        far[group] = far[group] or { shard, how, words, {} }
        table.insert(far[group][4], child .. ' ' .. place .. ' ' .. call)
      end
    elseif #near >= room then
      later[#later + 1] = child .. ' ' .. edge -- also an edge that is damaged: go_on skips it
    end
  end
  for _, group in pairs(far) do
    redis.call('XADD', key_prefix .. 'out', '*', 'to', group[1], 'c', table.concat(group[4], '\n'), 'p', job.id, 'n', job.request_id, 'h', group[2], 'w', group[3])
  end
  job.is_kept_once = takers > 1 and job.how == 'S' and #job.words > MOST_COPIED
  told = told + #near
  if #later > 0 then tell_later(job, later) end
  for _, one in ipairs(near) do
    -- The message of a waiting job may be damaged. The ended job, and all other waiting jobs, must come to their end all the same.
    local is_whole, further = pcall(inherit, one[1], one[2], one[3], job, one[4], one[5], push_limit)
    if not is_whole then further = give_up(one[1], one[3], push_limit) end
    ended[#ended + 1] = further
  end
end

-- Matches one waiting job a line: its id, and the edge.
local EACH_EDGE = '(%S+) ([^\n]+)'

-- Returns such lines as the flat list that hand_down takes.
local function edges_in(text)
  local waiting = {}
  for child, edge in string.gmatch(text, EACH_EDGE) do
    waiting[#waiting + 1] = child
    waiting[#waiting + 1] = edge
  end
  return waiting
end

-- Delivers the ends of jobs to all jobs that wait for them. A job that waited for a value may start. A job that cannot get the value any more
-- ends in the same way, with the same outcome and the id of the job that caused it; and then so do the jobs that wait for that job.
local function settle(ended, push_limit)
  local at = 1
  while ended[at] do
    local job = ended[at]
    at = at + 1
    local waiting = redis.pcall('HGETALL', key_prefix .. 'dep:' .. job.id)
    if waiting['err'] then waiting = {} end -- somebody wrote another type under this key
    redis.call('DEL', key_prefix .. 'dep:' .. job.id)
    hand_down(job, waiting, push_limit, ended)
  end
end

-- Continues with the waiting jobs that tell_later stored, unless this call has delivered too many ends already. If somebody has deleted the
-- outcome, the waiting jobs fail.
local function go_on(name, push_limit)
  local key, kept = key_prefix .. 'rest:' .. name, key_prefix .. 'h:' .. name
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
    redis.call('ZREM', key_prefix .. 'd', ' ' .. name)
    count_down(kept) -- only now: the jobs of this call may be the only ones that need the value
  end
  settle(ended, push_limit)
end

-- Returns the part of an outcome that waiting jobs are given: of a long outcome that is no success only the short form in front of it, for
-- each job that ends by it stores a copy.
local function handed_on(how, outcome)
  if how == 'S' or #outcome <= MOST_WORDS then return outcome end
  local length, from = string.match(outcome, '^~(%d%d?%d?%d?) ()')
  return length and string.sub(outcome, from, from + length - 1) or ''
end

local function settle_dependents(id, request_id, letter, outcome, push_limit)
  settle({ ended_job(id, request_id, letter, handed_on(letter, outcome)) }, push_limit)
end

-- The fence. Returns flags, queue, request id and channels of a live job if its record names this entry and the entry is pending for this
-- consumer. Else it removes what is left of the job under that entry, and returns nil.
local function claimed(key, stream, group, consumer, entry, id)
  local record = redis.call('MGET', key)[1]
  local held = redis.call('XPENDING', stream, group, entry, entry, 1, consumer)[1]
  local flags, named, queue, request_id, channels
  if record then flags, named, queue, request_id, channels = parse(record) end
  if held and named == entry and string.sub(flags, 1, 1) == 'L' then return flags, queue, request_id, channels end
  if named ~= entry then drop_leftover(stream, group, consumer, entry, id) end
  return nil
end

-- What a job reported and yielded expires with its result, or with the tombstone of a job that was to be forgotten.
local function let_items_go(id, flags, ttl)
  if string.sub(flags, 3, 3) == 'f' then
    for _, kind in ipairs({ 'e:', 's:', 'sp:' }) do redis.call('PEXPIRE', key_prefix .. kind .. id, 60000) end
  elseif ttl then
    redis.call('PEXPIRE', key_prefix .. 's:' .. id, ttl)
  end
end

-- Ends a job that has flags. The caller notifies its waiters, and delivers its end to waiting jobs.
local function end_flagged(id, flags, entry, consumer, request_id, letter, outcome, ttl, signals)
  store(key_prefix .. 'r:' .. id, flags, entry, consumer, request_id, letter, outcome, ttl)
  let_items_go(id, flags)
  let_kept_go(id, flags)
  if string.sub(flags, 2, 2) ~= '-' then clear_signal(signals, id) end
end

-- Ends a job in one step: stores its outcome, notifies its waiters, and delivers its end to the jobs that wait for it.
local function conclude(id, flags, entry, consumer, request_id, channels, letter, outcome, ttl, push_limit)
  store(key_prefix .. 'r:' .. id, flags, entry, consumer, request_id, letter, outcome, ttl)
  let_items_go(id, flags, ttl) -- also if its worker died
  let_kept_go(id, flags)
  tell(channels, id, letter, outcome, tonumber(push_limit))
  if is_awaited(flags) then settle_dependents(id, request_id, letter, outcome, tonumber(push_limit)) end
end

-- Returns the key which says that an id belonged to a call before.
local function place_of_call(id, request_id)
  return key_prefix .. 'u:' .. id .. ':' .. string.match(request_id, '^[^~]*')
end

-- Returns whether an id belonged to this call within the last minute: then the call is sent again, late.
local function was_there(id, request_id)
  return redis.call('MGET', place_of_call(id, request_id))[1] ~= false
end

-- Removes the tombstone of an earlier call, for another call takes the id. The request id of the earlier call is kept for as long as the
-- tombstone would have stood; what its job reported and yielded is deleted.
local function make_room(id, request_id)
  redis.call('SET', place_of_call(id, request_id), '', 'PX', 60000)
  redis.call('DEL', key_prefix .. 'e:' .. id, key_prefix .. 's:' .. id, key_prefix .. 'sp:' .. id)
end

-- Returns whether a call may have an id: `free`, `taken`, or `again` if it has the id already. If a tombstone makes room, also its request id.
local function claim_to(id, request_id)
  local record = redis.call('MGET', key_prefix .. 'r:' .. id)[1]
  if not record then return 'free' end
  local known = string.match(record, '^.... %S+ %S+ (%S+)') or ''
  if same_call(known, request_id) or was_there(id, request_id) then return 'again' end
  if string.sub(record, 1, 1) ~= 'T' then return 'taken' end
  return 'free', known
end

-- Looks at the ids of the given jobs. Returns the ids that other jobs have, or that are there twice; whether one of the jobs is there already
-- under its own request id, so this call was sent before; and by id the request ids of tombstones that make room.
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

-- Accepts a job of a workflow: into its queue, for its time, or to wait for its parents. `dependents` are the jobs that wait for it. If it is
-- the last job of a replacement, `replaces` is set, and its dependents are stored already.
local function admit(id, queue, request_id, flags, wait, ttl, parents, dependents, wants_values, message, channels, replaces)
  local key = key_prefix .. 'r:' .. id
  for child, edge in string.gmatch(dependents, EACH_EDGE) do redis.call('HSET', key_prefix .. 'dep:' .. id, child, edge) end
  if parents == '' then
    if wait == '' then
      use_level(key_prefix, queue)
      local entry = redis.call('XADD', key_prefix .. 'q:' .. queue, '*', 'i', id, 'm', message)
      redis.call('SET', key, 'L' .. flags .. ' ' .. entry .. ' ' .. queue .. ' ' .. request_id .. channels)
    else
      delay(key, 'D', 'D' .. flags, queue, request_id, channels, id, { 'm', message }, wait, key_prefix .. 'm:', key_prefix .. 'd', key_prefix .. 'wake')
    end
    return
  end
  local _, count = string.gsub(parents, '%S+', '')
  local fields = { 'm', message, 'p', parents, 't', ttl }
  for name, value in pairs({ n = count, w = wait, k = wants_values, r = replaces }) do
    if value ~= '' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  redis.call('HSET', key_prefix .. 'm:' .. id, unpack(fields))
  redis.call('SET', key, 'W' .. flags .. ' 0 ' .. queue .. ' ' .. request_id .. channels)
end

-- Accepts the job whose arguments begin at index `i`. Nobody is notified of a result that is ignored.
local function admit_at(i, channel)
  local flags = ARGV[i + 3]
  local channels = string.sub(flags, 2, 2) == 'i' and ' ' or ' ' .. channel
  admit(ARGV[i], ARGV[i + 1], ARGV[i + 2], flags, ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7], ARGV[i + 8], ARGV[i + 9], channels, '')
end

-- Accepts the given jobs, and adds the batches to the outbox.
local function admit_all(first, stride, channel, batches, left)
  for id, request_id in pairs(left) do make_room(id, request_id) end
  for i = first, #ARGV, stride do admit_at(i, channel) end
  if batches == '' then return end
  for _, batch in ipairs(cmsgpack.unpack(batches)) do
    redis.call('XADD', key_prefix .. 'out', '*', 'to', batch[1], 'b', batch[2])
  end
end
