-- Ends jobs that wait in one stream as revoked, the oldest first, up to a number of jobs. What workers have goes on.
-- Caller: a client, again and again until nothing is left. Every call has the same `until_ms`, so jobs that come meanwhile stay.
-- Sent twice: ends the next jobs; no job ends twice.
-- KEYS: stream
-- ARGV: key_prefix group until_ms max_entries outcome ttl push_limit
-- RETURNS: {how many jobs have ended, 1 if there may be more}
-- FLAGS: allow-oom
-- USES: record workflow queues
local ended_jobs, bytes, removed, most = 0, 0, {}, tonumber(max_entries)
local _, _, start = entries_of(stream, group)
while start and #removed < most and bytes < MAX_MOVED_BYTES and delivered < MAX_DELIVERED do
  local some = redis.call('XRANGE', stream, start, until_ms, 'COUNT', math.min(most - #removed, bytes > 1000 * #removed and 10 or 100))
  if #some == 0 then
    most = -1
    break
  end
  for _, item in ipairs(some) do
    local entry, fields = item[1], {}
    for i = 1, #item[2], 2 do fields[item[2][i]] = item[2][i + 1] end
    start, removed[#removed + 1], bytes = '(' .. entry, entry, bytes + count_bytes(item[2])
    local id = fields['i']
    local record = id and redis.call('MGET', key_prefix .. KEY.RECORDS .. id)[1]
    local flags, current_entry, _, request_id, channels
    if record then flags, current_entry, _, request_id, channels = parse_record(record) end
    -- An entry that no record names belongs to no job (any more), and only goes.
    if current_entry == entry and state_of(flags) == STATE.LIVE then
      end_job(id, flags, entry, '-', request_id, channels, STATE.REVOKED, outcome, ttl, push_limit)
      ended_jobs = ended_jobs + 1
    end
  end
end
if #removed > 0 then redis.call('XDEL', stream, unpack(removed)) end
return { ended_jobs, start and most ~= -1 and 1 or 0 }
