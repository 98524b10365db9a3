-- Ends jobs that wait in one stream as revoked, the oldest first, up to a number of jobs and of bytes. What workers have goes on.
-- Caller: a client, again and again until nothing is left. Every call has the same `until_ms`, so jobs that come meanwhile stay.
-- Sent twice: ends the next jobs; no job ends twice.
-- KEYS: stream
-- ARGV: key_prefix group until_ms max_entries max_bytes outcome ttl push_limit
-- RETURNS: {how many jobs have ended, 1 if there may be more} | {ends, the same, ended jobs}
-- FLAGS: allow-oom
-- USES: record workflow queues
local ended_jobs, bytes, removed, has_more = 0, 0, {}, 1
local most, most_bytes, max_pushed, notifications = tonumber(max_entries), tonumber(max_bytes), tonumber(push_limit), {}

-- Ends the job of an entry, if its record names the entry. An entry that no record names belongs to no job (any more), and only goes.
local function end_job_of(entry, fields, id, record)
  local flags, current_entry, queue, request_id, channels = parse_record(record)
  if current_entry ~= entry or state_of(flags) ~= STATE.LIVE then return end
  store_outcome(key_prefix .. KEY.RECORDS .. id, flags, entry, '-', request_id, STATE.REVOKED, outcome, ttl)
  if fields['a'] or fields['c'] or wish_of(flags) == WISH.FORGOTTEN then expire_output(id, flags, ttl) end -- else no body has begun
  release_values(id, flags)
  local framed = frame_outcome(id, STATE.REVOKED, outcome, max_pushed)
  for channel in string.gmatch(channels, '%S+') do
    local parts = notifications[channel]
    if parts then parts[#parts + 1] = framed else notifications[channel] = { framed } end
  end
  report_end(id, STATE.REVOKED, queue, fields['m'], outcome)
  if has_dependents(flags) then deliver_end_of(id, request_id, STATE.REVOKED, outcome, max_pushed) end
  ended_jobs = ended_jobs + 1
end

local _, _, start = entries_of(stream, group)
while start and #removed < most and bytes < most_bytes and delivered < MAX_DELIVERED do
  -- Each read takes the messages, too. So first one, and then as many as are likely to fit.
  local fitting = #removed == 0 and 1 or math.max(1, math.floor((most_bytes - bytes) * #removed / (bytes + 1)))
  local some = redis.call('XRANGE', stream, start, until_ms, 'COUNT', math.min(most - #removed, fitting))
  if #some == 0 then
    has_more = 0
    break
  end
  local jobs, keys = {}, {}
  for _, item in ipairs(some) do
    local entry, fields = item[1], {}
    for i = 1, #item[2], 2 do fields[item[2][i]] = item[2][i + 1] end
    start, removed[#removed + 1], bytes = '(' .. entry, entry, bytes + count_bytes(item[2])
    if fields['i'] then
      jobs[#jobs + 1] = { entry, fields, fields['i'] }
      keys[#keys + 1] = key_prefix .. KEY.RECORDS .. fields['i']
    end
  end
  local found = #keys > 0 and redis.call('MGET', unpack(keys)) or {}
  for k, job in ipairs(jobs) do if found[k] then end_job_of(job[1], job[2], job[3], found[k]) end end
end
for channel, parts in pairs(notifications) do redis.call('PUBLISH', channel, table.concat(parts)) end
if #removed > 0 then redis.call('XDEL', stream, unpack(removed)) end
local answer = { ended_jobs, start and has_more or 0 }
return with_ends(answer)
