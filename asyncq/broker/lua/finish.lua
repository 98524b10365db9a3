-- Ends jobs: stores each outcome, acknowledges and deletes the entry, notifies the waiters. The fence: an outcome is accepted only if the
-- job is live, and its record names this entry and this call. Whoever takes an entry away from a worker makes the record name another one in
-- the same step, so a worker that was taken for dead fails this check.
-- Caller: a worker, for all jobs that end in one turn of its loop.
-- Sent twice: the record names the entry and the consumer, so the answer is 2 and nothing is written.
-- KEYS: stream
-- ARGV: key_prefix queue group consumer push_limit signals_prefix (entry id request_id channel letter ttl outcome)*
-- RETURNS: the number of jobs if all were accepted, else for each: 1 accepted, 2 accepted before, 0 refused | {ends, the same, ended jobs}
-- FLAGS: allow-oom
-- USES: record workflow
-- RARELY: end_flagged deliver_end_of

-- All reads of records come before the first write: a script that fails keeps what it wrote so far.
local keys = {}
for i = first + 1, #ARGV, stride do keys[#keys + 1] = key_prefix .. KEY.RECORDS .. ARGV[i] end
local found, taken = redis.call('MGET', unpack(keys)), {} -- `taken`: a call may name a job twice, which ends once

-- Most jobs have a record without flags and one waiter. The first job that is not like that, and all behind it, take the longer way below.
local notifications, max_pushed = {}, tonumber(push_limit)
local to_acknowledge, first_other = {}, nil
for k, key in ipairs(keys) do
  local i = first + (k - 1) * stride
  local entry, request_id, channel, letter, outcome = ARGV[i], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 6]
  if found[k] ~= STATE.LIVE .. FLAGS.NONE .. ' ' .. entry .. ' ' .. queue .. ' ' .. request_id .. ' ' .. channel or taken[key] then
    first_other = k
    break
  end
  redis.call('SET', key, letter .. FLAGS.NONE .. ' ' .. entry .. ' ' .. consumer .. ' ' .. request_id .. ' ' .. outcome, 'PX', ARGV[i + 5])
  taken[key], to_acknowledge[k] = true, entry
  local parts, framed = notifications[channel], frame_outcome(ARGV[i + 1], letter, outcome, max_pushed)
  if parts then parts[#parts + 1] = framed else notifications[channel] = { framed } end
end
local count = #to_acknowledge
if count > 0 then
  redis.call('XACK', stream, group, unpack(to_acknowledge))
  redis.call('XDEL', stream, unpack(to_acknowledge))
  for channel, parts in pairs(notifications) do redis.call('PUBLISH', channel, #parts == 1 and parts[1] or table.concat(parts)) end
end
if not first_other then return count end

local function is_pending(entry) return redis.call('XPENDING', stream, group, entry, entry, 1, consumer)[1] ~= nil end

local answers, accepted_jobs = {}, {}
for k = 1, count do answers[k] = 1 end
to_acknowledge, notifications = {}, {}
for k = first_other, #keys do
  local i, key = first + (k - 1) * stride, keys[k]
  local entry, id, request_id, answer = ARGV[i], ARGV[i + 1], ARGV[i + 2], 0
  if found[k] then
    local flags, current_entry, ended_by, stored_id, channels = parse_record(found[k])
    if current_entry == entry and state_of(flags) == STATE.LIVE then
      -- The last job of a workflow that replaced a job has the request id of that job in its record. The signal of a revocation lies with the
      -- worker that has the entry.
      if not taken[key] and ((same_call(stored_id, request_id) and not is_signalled(flags)) or is_pending(entry)) then
        accepted_jobs[#accepted_jobs + 1] = { key, i, flags, stored_id, channels }
        answer, taken[key] = 1, true
      end
    elseif current_entry == entry and ended_by == consumer then
      answer = 2
    end
  end
  if answer ~= 1 and not taken[key] and is_pending(entry) then
    -- The entry is pending for us, but there is no record, or it does not name this entry, or it says that we have ended the job. If the
    -- entry has this job's id, it is a leftover that nobody will ever end: a call that failed half-way (it may not acknowledge, say) leaves
    -- one. If it has another id (after a flush, entry ids are given out twice), it must stay.
    local item = redis.call('XRANGE', stream, entry, entry)[1]
    if not item or (item[2][1] == 'i' and item[2][2] == id) then to_acknowledge[#to_acknowledge + 1] = entry end
  end
  answers[k] = answer
end

-- MAX_DELIVERED bounds the deliveries for all these jobs together: `delivered` counts through the whole call.
for _, job in ipairs(accepted_jobs) do
  local key, i, flags, request_id, channels = job[1], job[2], job[3], job[4], job[5]
  local id, letter, ttl, outcome = ARGV[i + 1], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6]
  to_acknowledge[#to_acknowledge + 1] = ARGV[i]
  if string.sub(flags, 2) == FLAGS.NONE then
    redis.call('SET', key, letter .. FLAGS.NONE .. ' ' .. ARGV[i] .. ' ' .. consumer .. ' ' .. request_id .. ' ' .. outcome, 'PX', ttl)
  else
    end_flagged(id, flags, ARGV[i], consumer, request_id, letter, outcome, ttl, signals_prefix .. consumer)
    if has_dependents(flags) then deliver_end_of(id, request_id, letter, outcome, max_pushed) end
  end
  local framed = frame_outcome(id, letter, outcome, max_pushed)
  for channel in string.gmatch(channels, '%S+') do
    local parts = notifications[channel]
    if parts then parts[#parts + 1] = framed else notifications[channel] = { framed } end
  end
end
if #to_acknowledge > 0 then
  redis.call('XACK', stream, group, unpack(to_acknowledge))
  redis.call('XDEL', stream, unpack(to_acknowledge))
end
for channel, parts in pairs(notifications) do redis.call('PUBLISH', channel, table.concat(parts)) end
local answer = count + #accepted_jobs == #answers and #answers or answers
return with_ends(answer)
