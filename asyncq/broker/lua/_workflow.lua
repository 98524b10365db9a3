-- What the end of a job does to the jobs that wait for it. For scripts that have an argument `key_prefix`: the prefix of every key.
-- A parent is a job that ends. A dependent is a job that waits for it. An edge is what a parent's `dep:` hash says of one dependent.

-- The most bytes of values that one job is given. If its values are longer, the worker fails the job: a thousand values of a megabyte would
-- be a string that no server takes.
local MAX_VALUE_BYTES = 16 * 1024 * 1024

-- The most bytes of a failure (or any other end that is no success) that a waiting job is given.
local MAX_INHERITED_BYTES = 8192

-- A longer value for which several jobs wait is stored once for all of them. A shorter value is copied into the entry of each job.
local MAX_COPIED_BYTES = 1024

-- One call delivers the ends of jobs to at most so many waiting jobs: ten thousand would hold up the server for a second. deliver_later
-- stores the others.
local MAX_DELIVERED = 250
local delivered = 0

-- The jobs that this call has ended, and of which its caller cannot know: {id, letter, queue, task, when it was enqueued (ms), outcome} of each.
-- They go into the answer, and the caller notes them in the history. An outcome that is that of the job before is a 0.
local ends = nil
local last_reported = nil

local function with_ends(answer) return ends and { ANSWER.ENDS, answer, ends } or answer end

-- Reports that a job has ended. `message` may be nil: then nobody knows its task.
local function report_end(id, letter, queue, message, outcome)
  local task, enqueued = call_in(message or '')
  ends = ends or {}
  ends[#ends + 1] = { id, letter, queue, task, enqueued, outcome == last_reported and 0 or outcome }
  last_reported = outcome
end

-- Returns the message among the fields of an entry; nil if there is none.
local function message_in(fields)
  for i = 1, #fields, 2 do if fields[i] == 'm' then return fields[i + 1] end end
end

-- Returns whether other jobs wait for the end of a job with these flags.
local function has_dependents(flags)
  return string.find(flags, '[' .. LINK.DEPENDENTS .. LINK.BOTH .. ']', 4) ~= nil
end

-- Returns whether a job with these flags needs values that are stored once for several jobs.
local function needs_values(flags)
  return string.find(flags, '[' .. LINK.VALUES .. LINK.BOTH .. ']', 4) ~= nil
end

-- Stores the value of an ended job once, and counts one more job that needs it. Returns the new flags of that job.
local function store_value_for(dependent, flags, job)
  flags = string.sub(flags, 1, 3) .. (has_dependents(flags) and LINK.BOTH or LINK.VALUES)
  redis.call('SADD', key_prefix .. KEY.NEEDS .. dependent, job.name)
  redis.call('SETRANGE', key_prefix .. KEY.RECORDS .. dependent, 3, string.sub(flags, 4))
  if redis.call('HINCRBY', key_prefix .. KEY.KEPT .. job.name, 'n', 1) == 1 then redis.call('HSET', key_prefix .. KEY.KEPT .. job.name, 'o', job.outcome) end
  return flags
end

-- A job with a dead letter may be sent again, so the values that it needs stay as long as the letter may stay.
local function keep_values_for_dead_letter(id, flags, ttl)
  if not needs_values(flags) then return end
  for _, name in ipairs(redis.call('SMEMBERS', key_prefix .. KEY.NEEDS .. id)) do redis.pcall('HSET', key_prefix .. KEY.KEPT .. name, 'd', ttl) end
end

-- One job less needs a stored value. The last one deletes it. If the count is damaged, the value stays for a week.
local function release_value(key)
  local remaining = redis.pcall('HINCRBY', key, 'n', -1)
  if type(remaining) ~= 'number' then
    redis.call('PEXPIRE', key, 604800000) -- nobody can know which jobs need it
  elseif remaining <= 0 then
    local ttl = string.match(redis.call('HMGET', key, 'd')[1] or '', '^%d+$')
    if ttl and #ttl < 16 then redis.call('PEXPIRE', key, ttl) else redis.call('DEL', key) end
  end
end

-- A job has ended, or a workflow takes its place, so it needs no values any more. Its list of values is deleted in the same step in which the
-- values are counted down, so no value is counted down twice.
local function release_values(id, flags)
  if not needs_values(flags) then return end
  local names = redis.pcall('SMEMBERS', key_prefix .. KEY.NEEDS .. id)
  redis.call('DEL', key_prefix .. KEY.NEEDS .. id)
  for _, name in ipairs(names['err'] and {} or names) do release_value(key_prefix .. KEY.KEPT .. name) end
end

-- A job that waited for other jobs may start: its message and their values become an entry of its queue, or wait for the time of the job.
local function enqueue_waiting(id, flags, queue, request_id, channels)
  local fields, message = {}, key_prefix .. KEY.MESSAGES .. id
  local content = redis.call('HGETALL', message)
  for i = 1, #content, 2 do fields[content[i]] = content[i + 1] end
  local values, entry = {}, { 'm', fields['m'] }
  for _ in string.gmatch(fields['p'], '%S+') do values[#values + 1] = fields['v' .. #values] end
  if #values > 0 then
    entry[#entry + 1] = 'v'
    entry[#entry + 1] = tonumber(fields['s']) > MAX_VALUE_BYTES and '!' or table.concat(values)
  end
  redis.call('DEL', message)
  if fields['w'] then
    delay_job(key_prefix .. KEY.RECORDS .. id, STATE.SCHEDULED, flags, queue, request_id, channels, id, entry, fields['w'], key_prefix .. KEY.MESSAGES, key_prefix .. KEY.DELAYED, key_prefix .. KEY.WAKE)
    return
  end
  use_level(key_prefix, queue)
  local added = redis.call('XADD', key_prefix .. KEY.QUEUES .. queue, '*', 'i', id, unpack(entry))
  redis.call('SET', key_prefix .. KEY.RECORDS .. id, STATE.LIVE .. flags_of(flags) .. ' ' .. added .. ' ' .. queue .. ' ' .. request_id .. channels)
end

-- An ended job, as the functions below take it. `is_inherited`: its body never began. `name`: of its value, if that is stored once for
-- several jobs.
local function ended_job(id, request_id, letter, outcome, is_inherited)
  request_id = call_of(request_id)
  return { id = id, request_id = request_id, name = id .. ':' .. request_id, letter = letter, outcome = outcome, is_inherited = is_inherited }
end

-- Delivers the end of one parent to a job that waits: that job may start now, or ends too. Returns the job as an ended job if others wait
-- for its end, else nil. `job` is the parent; `parent_index` is its index among the parents. `letter` and `outcome` are what this dependent
-- is given, which may differ from the parent's own end, see deliver_end.
local function deliver_to(dependent, parent_index, expected_request_id, job, letter, outcome, push_limit)
  local key, message = key_prefix .. KEY.RECORDS .. dependent, key_prefix .. KEY.MESSAGES .. dependent
  local record = redis.call('MGET', key)[1]
  if not record or state_of(record) ~= STATE.WAITING then return nil end
  local flags, _, queue, request_id, channels = parse_record(record)
  -- The dependent may have been revoked long ago, and another job that waits may have its id by now.
  if not same_call(request_id, expected_request_id) then return nil end
  local options = redis.call('HMGET', message, 'k', 't', 'p', 'r')
  if not options[2] then return nil end -- somebody has deleted the message; the parent must end all the same
  local is_callback, succeeded = parent_index == 'e', letter == STATE.SUCCEEDED
  if is_callback and not succeeded then
    -- Only the first failure counts. It is delivered in the name of the last parent, which stands for the whole chain or group.
    if options[1] then
      local last_parent = string.match(options[3], '%S+$')
      if last_parent ~= job.id and string.sub(outcome, 1, 1) ~= '^' then outcome = '^' .. job.id .. ' ' .. outcome end
      redis.call('HSET', message, 's', #outcome, 'v0', frame_outcome(last_parent, letter, outcome, math.huge))
    end
    enqueue_waiting(dependent, flags, queue, request_id, channels)
    return nil
  end
  if succeeded then
    if options[1] and not is_callback then
      local fits = redis.call('HINCRBY', message, 's', #outcome) <= MAX_VALUE_BYTES
      local framed = ''
      if fits and job.is_stored_once then
        flags = store_value_for(dependent, flags, job)
        framed = job.id .. ' ' .. letter .. ' @' .. job.request_id .. '\n'
      elseif fits then
        framed = frame_outcome(job.id, letter, outcome, math.huge)
      end
      redis.call('HSET', message, 'v' .. parent_index, framed)
    end
    local is_last = redis.call('HINCRBY', message, 'n', -1) <= 0
    if is_last and not is_callback then enqueue_waiting(dependent, flags, queue, request_id, channels) end
    if not (is_last and is_callback) then return nil end
  end
  local final_letter, final_outcome = letter, outcome
  if succeeded then
    final_letter, final_outcome, flags = STATE.REVOKED, '', '-' .. SIGNAL.NONE .. WISH.IGNORED .. string.sub(flags, 4) -- nothing failed, so nobody will ever ask for its result
  elseif string.sub(outcome, 1, 1) ~= '^' then
    final_outcome = '^' .. job.id .. ' ' .. outcome
  end
  -- A callback that is not called has nothing to report.
  if not succeeded then report_end(dependent, final_letter, queue, redis.call('HMGET', message, 'm')[1], final_outcome) end
  redis.call('DEL', message)
  release_values(dependent, flags)
  store_outcome(key, flags, '0', '-', request_id, final_letter, final_outcome, options[2])
  notify(channels, dependent, final_letter, final_outcome, push_limit)
  -- A job that was replaced by a workflow has started, so this counts as its own failure, not as an inherited one.
  return has_dependents(flags) and ended_job(dependent, request_id, final_letter, final_outcome, not options[4]) or nil
end

-- Ends a waiting job whose message is damaged as failed, and without an outcome: the reader reports what is wrong. Returns as deliver_to.
local function fail_damaged(dependent, expected_request_id, push_limit)
  local key = key_prefix .. KEY.RECORDS .. dependent
  local record = redis.call('MGET', key)[1]
  if not record or state_of(record) ~= STATE.WAITING then return nil end
  local flags, _, queue, request_id, channels = parse_record(record)
  if not same_call(request_id, expected_request_id) then return nil end
  report_end(dependent, STATE.FAILED, queue, nil, '')
  redis.call('DEL', key_prefix .. KEY.MESSAGES .. dependent)
  release_values(dependent, flags)
  store_outcome(key, flags, '0', '-', request_id, STATE.FAILED, '', 3600000) -- the time of its result stood in the damaged message
  notify(channels, dependent, STATE.FAILED, '', push_limit)
  return has_dependents(flags) and ended_job(dependent, request_id, STATE.FAILED, '') or nil
end

-- Stores the waiting jobs that are too many for one call: their edges, the outcome for them, and a member of the delayed jobs that is due at
-- once, so that the next `promote` calls continue_delivery. The member begins with a space, which no job id does.
local function deliver_later(job, edges)
  for index = 1, #edges, MAX_DELIVERED do
    local batch = table.concat(edges, '\n', index, math.min(index + MAX_DELIVERED - 1, #edges))
    redis.call('XADD', key_prefix .. KEY.UNDELIVERED .. job.name, '*', 'c', batch)
  end
  local value_key = key_prefix .. KEY.KEPT .. job.name
  redis.call('HINCRBY', value_key, 'n', 1)
  redis.call('HSET', value_key, 'o', job.outcome, 'w', job.letter, 'i', job.is_inherited and '1' or '')
  redis.call('ZADD', key_prefix .. KEY.DELAYED, 0, ' ' .. job.name)
  redis.call('PUBLISH', key_prefix .. KEY.WAKE, '0')
end

-- Delivers the end of a job to the waiting jobs of this shard. For waiting jobs of other shards it adds entries to the outbox in the same
-- step: one entry for all jobs of a shard that are given the same. Appends to `ended` the jobs that end by this.
-- `waiting` is a flat list of the id of each waiting job and its edge: the index of the ended job among its parents (or `e` if it waits for
-- their failure), its request id, and its shard if that is another one.
local function deliver_end(job, waiting, push_limit, ended)
  local local_jobs, remote_jobs, later_edges, value_takers, capacity = {}, {}, {}, 0, MAX_DELIVERED - delivered
  for i = 1, #waiting, 2 do
    local dependent, edge = waiting[i], waiting[i + 1]
    local parent_index, expected_request_id, shard
    if #local_jobs < capacity or not string.find(edge, '^%S+ %S+$') then parent_index, expected_request_id, shard = string.match(edge, '^(%S+) (%S+) ?(%S*)$') end
    if parent_index then
      local letter, outcome = job.letter, job.outcome
      -- A failure calls the callbacks of the job that failed, and no others. A revoked or expired job calls none.
      if parent_index == 'e' and (job.is_inherited or (letter ~= STATE.FAILED and letter ~= STATE.LOST)) then letter, outcome = STATE.SUCCEEDED, '' end
      if shard == '' then
        local_jobs[#local_jobs + 1] = { dependent, parent_index, expected_request_id, letter, outcome }
        if parent_index ~= 'e' then value_takers = value_takers + 1 end
      else
        local group = shard .. letter .. (outcome == '' and '-' or '') -- a callback that is not called gets no value
        remote_jobs[group] = remote_jobs[group] or { shard, letter, outcome, {} }
        table.insert(remote_jobs[group][4], dependent .. ' ' .. parent_index .. ' ' .. expected_request_id)
      end
    elseif #local_jobs >= capacity then
      later_edges[#later_edges + 1] = dependent .. ' ' .. edge -- also a damaged edge: continue_delivery skips it
    end
  end
  for _, group in pairs(remote_jobs) do
    redis.call('XADD', key_prefix .. KEY.OUTBOX, '*', 'to', group[1], 'c', table.concat(group[4], '\n'), 'p', job.id, 'n', job.request_id, 'h', group[2], 'w', group[3])
  end
  job.is_stored_once = value_takers > 1 and job.letter == STATE.SUCCEEDED and #job.outcome > MAX_COPIED_BYTES
  delivered = delivered + #local_jobs
  if #later_edges > 0 then deliver_later(job, later_edges) end
  for _, each in ipairs(local_jobs) do
    -- The message of a waiting job may be damaged. The ended job, and all other waiting jobs, must come to their end all the same.
    local is_whole, ended_dependent = pcall(deliver_to, each[1], each[2], each[3], job, each[4], each[5], push_limit)
    if not is_whole then ended_dependent = fail_damaged(each[1], each[3], push_limit) end
    ended[#ended + 1] = ended_dependent
  end
end

-- Matches one line for each waiting job: its id, and the edge.
local EDGE = '(%S+) ([^\n]+)'

-- Returns such lines as the flat list that deliver_end takes.
local function parse_edges(text)
  local waiting = {}
  for dependent, edge in string.gmatch(text, EDGE) do
    waiting[#waiting + 1] = dependent
    waiting[#waiting + 1] = edge
  end
  return waiting
end

-- Delivers the ends of jobs to all jobs that wait for them. A job that waited for a value may start. A job that cannot get the value any more
-- ends in the same way, with the same outcome and the id of the job that caused it; and then so do the jobs that wait for that job.
local function deliver_all(ended, push_limit)
  local index = 1
  while ended[index] do
    local job = ended[index]
    index = index + 1
    local waiting = redis.pcall('HGETALL', key_prefix .. KEY.DEPENDENTS .. job.id)
    if waiting['err'] then waiting = {} end -- somebody wrote another type under this key
    redis.call('DEL', key_prefix .. KEY.DEPENDENTS .. job.id)
    deliver_end(job, waiting, push_limit, ended)
  end
end

-- Continues with the waiting jobs that deliver_later stored, unless this call has delivered too many ends already. If somebody has deleted
-- the outcome, the waiting jobs fail.
local function continue_delivery(name, push_limit)
  local key, value_key = key_prefix .. KEY.UNDELIVERED .. name, key_prefix .. KEY.KEPT .. name
  local batch = redis.call('XRANGE', key, '-', '+', 'COUNT', 2)
  local waiting, ended = batch[1] and parse_edges(batch[1][2][2]) or {}, {}
  if delivered > 0 and delivered + #waiting / 2 > MAX_DELIVERED then return end
  local options = redis.call('HMGET', value_key, 'o', 'w', 'i')
  if batch[1] then redis.call('XDEL', key, batch[1][1]) end
  if options[1] and options[2] then
    local id, request_id = string.match(name, '^(.*):([^:]*)$')
    deliver_end(ended_job(id, request_id, options[2], options[1], options[3] == '1'), waiting, push_limit, ended)
  else
    for i = 1, #waiting, 2 do ended[#ended + 1] = fail_damaged(waiting[i], string.match(waiting[i + 1], '%S*$'), push_limit) end
  end
  if not batch[2] then
    redis.call('DEL', key)
    redis.call('ZREM', key_prefix .. KEY.DELAYED, ' ' .. name)
    release_value(value_key) -- only now: the jobs of this call may be the only ones that need the value
  end
  deliver_all(ended, push_limit)
end

-- Returns the part of an outcome that waiting jobs are given: of a long outcome that is no success only the short form in front of it, for
-- each job that ends by it stores a copy.
local function inherited_outcome(letter, outcome)
  if letter == STATE.SUCCEEDED or #outcome <= MAX_INHERITED_BYTES then return outcome end
  local length, from = string.match(outcome, '^~(%d%d?%d?%d?) ()')
  return length and string.sub(outcome, from, from + length - 1) or ''
end

local function deliver_end_of(id, request_id, letter, outcome, push_limit)
  deliver_all({ ended_job(id, request_id, letter, inherited_outcome(letter, outcome)) }, push_limit)
end

-- The fence. Returns flags, queue, request id and channels of a live job if its record names this entry and the entry is pending for this
-- consumer. Else it removes what is left of the job under that entry, and returns nil.
local function check_claim(key, stream, group, consumer, entry, id)
  local record = redis.call('MGET', key)[1]
  local pending = redis.call('XPENDING', stream, group, entry, entry, 1, consumer)[1]
  local flags, current_entry, queue, request_id, channels
  if record then flags, current_entry, queue, request_id, channels = parse_record(record) end
  if pending and current_entry == entry and state_of(flags) == STATE.LIVE then return flags, queue, request_id, channels end
  if current_entry ~= entry then drop_leftover(stream, group, consumer, entry, id) end
  return nil
end

-- What a job reported and yielded expires with its result, or with the tombstone of a job that was to be forgotten.
local function expire_output(id, flags, ttl)
  if wish_of(flags) == WISH.FORGOTTEN then
    for _, kind in ipairs({ KEY.LATEST, KEY.ITEMS, KEY.READER_POSITIONS }) do redis.call('PEXPIRE', key_prefix .. kind .. id, 60000) end
  elseif ttl then
    redis.call('PEXPIRE', key_prefix .. KEY.ITEMS .. id, ttl)
  end
end

-- Ends a job that has flags. The caller notifies its waiters, and delivers its end to waiting jobs.
local function end_flagged(id, flags, entry, consumer, request_id, letter, outcome, ttl, signals)
  store_outcome(key_prefix .. KEY.RECORDS .. id, flags, entry, consumer, request_id, letter, outcome, ttl)
  expire_output(id, flags)
  release_values(id, flags)
  if is_signalled(flags) then clear_signal(signals, id) end
end

-- Ends a job in one step: stores its outcome, notifies its waiters, and delivers its end to the jobs that wait for it.
local function end_job(id, flags, entry, consumer, request_id, channels, letter, outcome, ttl, push_limit)
  store_outcome(key_prefix .. KEY.RECORDS .. id, flags, entry, consumer, request_id, letter, outcome, ttl)
  expire_output(id, flags, ttl) -- also if its worker died
  release_values(id, flags)
  notify(channels, id, letter, outcome, tonumber(push_limit))
  if has_dependents(flags) then deliver_end_of(id, request_id, letter, outcome, tonumber(push_limit)) end
end

-- Returns the key which says that an id belonged to a call before.
local function earlier_call_key(id, request_id)
  return key_prefix .. KEY.CALLS .. id .. ':' .. call_of(request_id)
end

-- Returns whether an id belonged to this call within the last minute: then the call is sent again, late.
local function is_resent(id, request_id)
  return redis.call('MGET', earlier_call_key(id, request_id))[1] ~= false
end

-- Removes the tombstone of an earlier call, for another call takes the id. The request id of the earlier call is kept for as long as the
-- tombstone would have stood; what its job reported and yielded is deleted.
local function replace_tombstone(id, request_id)
  redis.call('SET', earlier_call_key(id, request_id), '', 'PX', 60000)
  redis.call('DEL', key_prefix .. KEY.LATEST .. id, key_prefix .. KEY.ITEMS .. id, key_prefix .. KEY.READER_POSITIONS .. id)
end

-- Returns whether a call may have an id: `free`, `taken`, or `again` if it has the id already. If the id has a tombstone, also the request
-- id of that.
local function check_id(id, request_id)
  local record = redis.call('MGET', key_prefix .. KEY.RECORDS .. id)[1]
  if not record then return 'free' end
  local stored_id = request_id_of(record) or ''
  if same_call(stored_id, request_id) or is_resent(id, request_id) then return 'again' end
  if state_of(record) ~= STATE.TOMBSTONE then return 'taken' end
  return 'free', stored_id
end

-- Checks the ids of the given jobs. Returns the ids that other jobs have, or that are there twice; whether one of the jobs is there already
-- under its own request id, so this call was sent before; and by id the request ids of the tombstones that these jobs replace.
local function check_ids(first, stride, own_id)
  local taken, seen, tombstones = {}, {}, {}
  if own_id then seen[own_id] = true end
  for i = first, #ARGV, stride do
    local id = ARGV[i]
    local answer, request_id = check_id(id, ARGV[i + 2])
    if answer == 'again' then return taken, true, tombstones end
    if answer == 'taken' or seen[id] then taken[#taken + 1] = id end
    seen[id], tombstones[id] = true, request_id
  end
  return taken, false, tombstones
end

-- Accepts a job of a workflow: into its queue, for its time, or to wait for its parents. `dependents` are the jobs that wait for it. If it is
-- the last job of a replacement, `replaces` is set, and its dependents are stored already.
local function accept_job(id, queue, request_id, flags, wait, ttl, parents, dependents, wants_values, message, channels, replaces)
  local key = key_prefix .. KEY.RECORDS .. id
  for dependent, edge in string.gmatch(dependents, EDGE) do redis.call('HSET', key_prefix .. KEY.DEPENDENTS .. id, dependent, edge) end
  if parents == '' then
    if wait == '' then
      use_level(key_prefix, queue)
      local entry = redis.call('XADD', key_prefix .. KEY.QUEUES .. queue, '*', 'i', id, 'm', message)
      redis.call('SET', key, STATE.LIVE .. flags .. ' ' .. entry .. ' ' .. queue .. ' ' .. request_id .. channels)
    else
      delay_job(key, STATE.SCHEDULED, STATE.SCHEDULED .. flags, queue, request_id, channels, id, { 'm', message }, wait, key_prefix .. KEY.MESSAGES, key_prefix .. KEY.DELAYED, key_prefix .. KEY.WAKE)
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
  redis.call('HSET', key_prefix .. KEY.MESSAGES .. id, unpack(fields))
  redis.call('SET', key, STATE.WAITING .. flags .. ' 0 ' .. queue .. ' ' .. request_id .. channels)
end

-- Accepts the job whose arguments begin at index `i`. Nobody is notified of a result that is ignored.
local function accept_job_at(i, channel)
  local flags = ARGV[i + 3] -- the three without a state
  local channels = string.sub(flags, 2, 2) == WISH.IGNORED and ' ' or ' ' .. channel
  accept_job(ARGV[i], ARGV[i + 1], ARGV[i + 2], flags, ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7], ARGV[i + 8], ARGV[i + 9], channels, '')
end

-- Accepts the given jobs, and adds the batches to the outbox.
local function accept_jobs(first, stride, channel, batches, tombstones)
  for id, request_id in pairs(tombstones) do replace_tombstone(id, request_id) end
  for i = first, #ARGV, stride do accept_job_at(i, channel) end
  if batches == '' then return end
  for _, batch in ipairs(cmsgpack.unpack(batches)) do
    redis.call('XADD', key_prefix .. KEY.OUTBOX, '*', 'to', batch[1], 'b', batch[2])
  end
end
