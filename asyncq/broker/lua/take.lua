-- Takes the jobs of a dead worker session back into their queues, up to a number of jobs and of bytes. Its beat must still be the one that the
-- observer saw through a whole lease. The first such call removes the beat, and from then on the session cannot come back.
-- Caller: a worker that has observed the dead session.
-- Sent twice: takes the rest, or nothing.
-- KEYS: stream beats beat_observations observations dead signals announced started last_attempt_queue returned_queue
-- ARGV: key_prefix group consumer beat_seen max_entries max_crashes own_name push_limit ttl lost_outcome revoked_outcome dead_ttl dead_cap returned_name
-- RETURNS: {alive} if it beats after all | {taken over, put back, revoked, 1 if there may be more, {id, head of message} of each lost job ...} | {ends, the same, ended jobs}
-- FLAGS: allow-oom
-- USES: record workflow observations
local beat = redis.call('HGET', beats, consumer)
if beat and beat ~= beat_seen then return { ANSWER.ALIVE } end
local pending = redis.call('XPENDING', stream, group, '-', '+', max_entries, consumer)
local entries, returned, revoked, lost_jobs, bytes = {}, 0, 0, {}, 0
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

-- If the session fetched ahead from this stream, the entry up to which its bodies had begun.
local noted_ms, noted_number = string.match(redis.pcall('HMGET', started, stream)[1] or '', '^(%d+)%-(%d+)$')
local function may_have_started(entry)
  if not noted_ms then return true end
  local ms, number = string.match(entry, '^(%d+)%-(%d+)$')
  ms, number = tonumber(ms) - tonumber(noted_ms), tonumber(number)
  return ms < 0 or (ms == 0 and number <= tonumber(noted_number))
end

-- Nobody can tell which job killed the worker, so the first crash counts for each whose body may have begun. Later crashes count for jobs
-- that were noted, see begin.
local function is_crash(entry, id, crashes)
  if crashes == 0 then return may_have_started(entry) end
  return redis.call('HMGET', started, entry .. ' ' .. id)[1]
end

if beat then
  redis.call('HDEL', beats, consumer)
  -- For some leases it stays known as dead: workers that serve other streams of it need not observe it through a lease of their own.
  redis.call('ZADD', beat_observations, -latest_observation(observations), consumer)
end
for _, item in ipairs(pending) do
  if bytes >= MAX_MOVED_BYTES then break end
  local entry = item[1]
  entries[#entries + 1] = entry
  local fields = {}
  local content = redis.call('XRANGE', stream, entry, entry)[1]
  if content then
    bytes = bytes + count_bytes(content[2])
    for i = 1, #content[2], 2 do fields[content[2][i]] = content[2][i + 1] end
  end
  local id, message = fields['i'], fields['m']
  local record = id and message and redis.call('MGET', key_prefix .. KEY.RECORDS .. id)[1]
  local flags, current_entry, queue, request_id, channels
  if record then flags, current_entry, queue, request_id, channels = parse_record(record) end
  if current_entry == entry and state_of(flags) == STATE.LIVE then
    local crashes = tonumber(fields['c']) or 0
    local counts = is_crash(entry, id, crashes)
    if counts then crashes = crashes + 1 end
    local letter
    if is_signalled(flags) then
      letter = STATE.REVOKED
    elseif crashes >= tonumber(max_crashes) then
      letter = STATE.LOST
    end
    if letter then
      local outcome = letter == STATE.LOST and lost_outcome or revoked_outcome
      if letter == STATE.LOST then
        keep_values_for_dead_letter(id, flags, dead_ttl)
        add_dead_letter(dead, content_of(id, fields, crashes), queue, 'took its worker down', outcome, dead_ttl, dead_cap)
        lost_jobs[#lost_jobs + 1] = { id, string.sub(message, 1, 1024) }
      else
        revoked = revoked + 1
      end
      end_job(id, flags, entry, own_name, request_id, channels, letter, outcome, ttl, push_limit)
      report_end(id, letter, queue, message, outcome)
    else
      local target, queue_name, new_content = stream, queue, content_of(id, fields, crashes)
      if not counts then
        -- Its body had not begun, so it keeps its turn and all that its entry says.
        target, queue_name, new_content = returned_queue, returned_name, content[2]
        use_level(key_prefix, queue_name)
      elseif crashes >= tonumber(max_crashes) - 1 and string.sub(queue, -1) ~= '!' then
        -- Nobody can tell which job killed the worker, so a last try runs alone, where it cannot harm other jobs.
        target, queue_name = last_attempt_queue, string.match(queue, '^[^%^]*') .. '!'
      end
      local new_entry = redis.call('XADD', target, '*', unpack(new_content))
      redis.call('SET', key_prefix .. KEY.RECORDS .. id, flags .. ' ' .. new_entry .. ' ' .. queue_name .. ' ' .. request_id .. channels)
      returned = returned + 1
    end
  end
end
if #entries > 0 then
  redis.call('XACK', stream, group, unpack(entries))
  redis.call('XDEL', stream, unpack(entries))
end
local has_more = 1
if #entries < tonumber(max_entries) and #entries == #pending then
  -- Only here, where the pending list is known to be empty: to delete a consumer drops its pending entries for good.
  redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer)
  redis.call('DEL', signals, announced)
  has_more = 0
end
local answer = { ANSWER.TAKEN_OVER, returned, revoked, has_more, unpack(lost_jobs) }
return with_ends(answer)
