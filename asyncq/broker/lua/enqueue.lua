-- Accepts jobs into one queue, or for a later time. The request id of a call with a key has two parts, and such a call finds the job of an
-- equal call by the first part. A job may replace the tombstone of another call. That call may be sent again, too, so its request id is
-- stored under a key of its own for as long as the tombstone would have stood.
-- Caller: a client, for all jobs that it enqueues in one turn of its loop.
-- Sent twice: a record with the same request id means that this call was accepted before, so nothing is written.
-- KEYS: stream
-- ARGV: key_prefix queue channel max_length (id request_id flags wait message)*
-- RETURNS: the number of jobs if all were accepted, else for each: 1 accepted, 0 another job has this id, or of the job of an equal call what fetch_status says; -1 if the queue is full, -2 if too many jobs wait for their time
-- USES: record
-- RARELY: status_of delay_job queue_length
local total, delayed_jobs, refusal = (#ARGV - first + 1) / stride, 0, nil
if max_length ~= '' then
  for i = first, #ARGV, stride do if ARGV[i + 3] ~= '' then delayed_jobs = delayed_jobs + 1 end end
  refusal = delayed_jobs < total and queue_length(stream) + total - delayed_jobs > tonumber(max_length) and -1
  refusal = refusal or (delayed_jobs > 0 and redis.call('ZCARD', key_prefix .. KEY.DELAYED) + delayed_jobs > tonumber(max_length) and -2)
end

-- Most jobs may start at once and have new ids. The record of such a job is compared and written in one command. The first job that is not
-- like that loses its entry again: it and all jobs behind it are read before anything is written.
local accepted, first_other = 0, refusal and first
if not refusal then
  if string.find(queue, '^', 1, true) then use_level(key_prefix, queue) end
  for i = first, #ARGV, stride do
    local is_other = ARGV[i + 3] ~= ''
    if not is_other then
      local flags = ARGV[i + 2]
      local reply_channel = flags == SIGNAL.NONE .. WISH.IGNORED .. LINK.NONE and '' or channel -- nobody is notified of an ignored result
      local entry = redis.call('XADD', stream, '*', 'i', ARGV[i], 'm', ARGV[i + 4])
      is_other = redis.pcall('SET', key_prefix .. KEY.RECORDS .. ARGV[i], STATE.LIVE .. flags .. ' ' .. entry .. ' ' .. queue .. ' ' .. ARGV[i + 1] .. ' ' .. reply_channel, 'NX', 'GET')
      if is_other then redis.call('XDEL', stream, entry) end
    end
    if is_other then
      first_other = i
      break
    end
    accepted = accepted + 1
  end
  if not first_other then return accepted end
end

local keys, answers, accepted_ids, existing = {}, {}, {}, {}
for k = 1, accepted do
  local i = first + (k - 1) * stride
  answers[k], accepted_ids[key_prefix .. KEY.RECORDS .. ARGV[i]] = 1, ARGV[i + 1]
end
for i = first_other, #ARGV, stride do keys[#keys + 1] = key_prefix .. KEY.RECORDS .. ARGV[i] end
local found = redis.call('MGET', unpack(keys))
-- Of a call that is sent again after another call took its id: true. Of a call that replaces a tombstone: the key of the tombstone's call.
local earlier_calls
for k, record in ipairs(found) do
  if record then
    local i = first_other + (k - 1) * stride
    local request_id, stored_id = ARGV[i + 1], request_id_of(record) or ''
    local is_tombstone = state_of(record) == STATE.TOMBSTONE
    if not same_call(stored_id, request_id) and (is_tombstone or not string.find(request_id, '^%x+%.')) then
      -- The same as is_resent and replace_tombstone, written out: Lua would make these functions at every enqueue.
      local call_prefix = key_prefix .. KEY.CALLS .. ARGV[i] .. ':'
      local is_resent_call = redis.call('MGET', call_prefix .. call_of(request_id))[1]
      earlier_calls = earlier_calls or {}
      if is_resent_call then
        earlier_calls[k] = true
      elseif is_tombstone then
        found[k], earlier_calls[k] = false, call_prefix .. call_of(stored_id)
      end
    end
  end
end
-- A batch fits whole or not at all. A job that was accepted before is not refused now.
for k in ipairs(refusal and keys or {}) do
  if not found[k] then return refusal end
end
if refusal and string.find(queue, '^', 1, true) then use_level(key_prefix, queue) end
for k, key in ipairs(keys) do
  local i = first_other + (k - 1) * stride
  local request_id = ARGV[i + 1]
  local flags = ARGV[i + 2]
  local reply_channel = flags == SIGNAL.NONE .. WISH.IGNORED .. LINK.NONE and '' or channel -- nobody is notified of an ignored result
  local stored_id = accepted_ids[key] or found[k] and (request_id_of(found[k]) or '')
  if not stored_id then
    local wait = ARGV[i + 3]
    if earlier_calls and earlier_calls[k] then
      redis.call('SET', earlier_calls[k], '', 'PX', 60000)
      redis.call('DEL', key_prefix .. KEY.LATEST .. ARGV[i], key_prefix .. KEY.ITEMS .. ARGV[i], key_prefix .. KEY.READER_POSITIONS .. ARGV[i])
    end
    if wait == '' then
      local entry = redis.call('XADD', stream, '*', 'i', ARGV[i], 'm', ARGV[i + 4])
      redis.call('SET', key, STATE.LIVE .. flags .. ' ' .. entry .. ' ' .. queue .. ' ' .. request_id .. ' ' .. reply_channel)
    else
      delay_job(key, STATE.SCHEDULED, STATE.SCHEDULED .. flags, queue, request_id, ' ' .. reply_channel, ARGV[i], { 'm', ARGV[i + 4] }, wait, key_prefix .. KEY.MESSAGES, key_prefix .. KEY.DELAYED, key_prefix .. KEY.WAKE)
    end
    accepted_ids[key] = request_id
    stored_id = request_id
  end
  local answer = 0
  if stored_id == request_id or same_call(stored_id, request_id) or (earlier_calls and earlier_calls[k] == true) then
    answer = 1
  else
    -- The request ids of equal calls with a key have the same part before the point.
    local call_hash = string.match(request_id, '^%x+%.')
    if call_hash and call_hash == string.match(stored_id, '^%x+%.') then
      answer = accepted_ids[key] and 1 or existing[key] or status_of(key, found[k], reply_channel)
      existing[key] = answer
    end
  end
  answers[#answers + 1] = answer
  if answer == 1 then accepted = accepted + 1 end
end
if accepted == total then return accepted end
return answers
