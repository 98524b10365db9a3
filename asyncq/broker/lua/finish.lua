-- Ends jobs: stores each outcome, acknowledges and deletes the entry, notifies the waiters. The fence: an outcome is accepted only if the
-- entry is pending for this consumer and the record names this entry. A worker that was taken for dead fails this check.
-- Caller: a worker, for all jobs that end in one turn of its loop.
-- Sent twice: the record names the entry and the consumer, so the answer is 2 and nothing is written.
-- KEYS: stream
-- ARGV: key_prefix queue group consumer low high span push_limit signals_prefix (entry id request_id channel letter ttl outcome)*
-- RETURNS: the number of jobs if all were accepted, else for each: 1 accepted, 2 accepted before, 0 refused
-- FLAGS: allow-oom
-- USES: record workflow
-- RARELY: end_flagged deliver_end_of
local pending_entries, is_listed = {}, false
local function is_pending(entry)
  if pending_entries[entry] ~= nil then return pending_entries[entry] end -- false: this call ends it, which it may do only once
  -- One XPENDING from the first to the last entry of a batch serves all of it (span 0: there is one job). An entry that the range does not list
  -- is asked for by itself before it is refused: the batch may be in another order, and entries of other jobs may have filled the range.
  if not is_listed and span ~= '0' then
    is_listed = true
    for _, item in ipairs(redis.call('XPENDING', stream, group, low, high, span, consumer)) do pending_entries[item[1]] = true end
    if pending_entries[entry] then return true end
  end
  return redis.call('XPENDING', stream, group, entry, entry, 1, consumer)[1] ~= nil
end

-- All reads come before the first write: a script that fails keeps what it wrote so far.
local keys = {}
for i = first + 1, #ARGV, stride do keys[#keys + 1] = key_prefix .. KEY.RECORDS .. ARGV[i] end
local found = redis.call('MGET', unpack(keys))
local accepted_jobs, answers, count, to_acknowledge = {}, {}, 0, {}
for k, key in ipairs(keys) do
  local i = first + (k - 1) * stride
  local entry, id, request_id, channel = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local record = found[k]
  answers[k] = 0
  if record == STATE.LIVE .. FLAGS.NONE .. ' ' .. entry .. ' ' .. queue .. ' ' .. request_id .. ' ' .. channel then
    if is_pending(entry) then
      accepted_jobs[#accepted_jobs + 1] = { key, i, '-' .. FLAGS.NONE, request_id, channel }
      answers[k], pending_entries[entry] = 1, false
    end
  elseif record then
    local flags, current_entry, ended_by, stored_id, channels = parse_record(record)
    if current_entry == entry and state_of(flags) == STATE.LIVE then
      if is_pending(entry) then
        accepted_jobs[#accepted_jobs + 1] = { key, i, flags, stored_id, channels }
        answers[k], pending_entries[entry] = 1, false
      end
    elseif current_entry == entry and ended_by == consumer then
      answers[k] = 2
    end
  end
  if answers[k] ~= 1 and is_pending(entry) then
    -- The entry is pending for us, but there is no record, or it does not name this entry, or it says that we have ended the job. If the
    -- entry has this job's id, it is a leftover that nobody will ever end: a call that failed half-way (it may not acknowledge, say) leaves
    -- one. If it has another id (after a flush, entry ids are given out twice), it must stay.
    local item = redis.call('XRANGE', stream, entry, entry)[1]
    if not item or (item[2][1] == 'i' and item[2][2] == id) then to_acknowledge[#to_acknowledge + 1] = entry end
  end
end

-- MAX_DELIVERED bounds the deliveries for all these jobs together: `delivered` counts through the whole call.
local notifications, max_pushed = {}, tonumber(push_limit)
for _, job in ipairs(accepted_jobs) do
  local key, i, flags, request_id, channels = job[1], job[2], job[3], job[4], job[5]
  local id, letter, ttl, outcome = ARGV[i + 1], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6]
  to_acknowledge[#to_acknowledge + 1] = ARGV[i]
  count = count + 1
  if flags == '-' .. FLAGS.NONE then
    redis.call('SET', key, letter .. FLAGS.NONE .. ' ' .. ARGV[i] .. ' ' .. consumer .. ' ' .. request_id .. ' ' .. outcome, 'PX', ttl)
  else
    end_flagged(id, flags, ARGV[i], consumer, request_id, letter, outcome, ttl, signals_prefix .. consumer)
  end
  local framed = frame_outcome(id, letter, outcome, max_pushed)
  if flags ~= '-' .. FLAGS.NONE and has_dependents(flags) then deliver_end_of(id, request_id, letter, outcome, max_pushed) end
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
if count == #keys then return count end
return answers
