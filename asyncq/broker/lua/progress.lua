-- Stores the latest report of a running job and publishes it to the followers of the job. The fence: the job is live and its record names
-- this entry.
-- Caller: a worker.
-- Sent twice: each report has a number, and a report that is not newer than the stored one changes nothing.
-- KEYS: record latest
-- ARGV: entry number at state meta ttl channel push_limit
-- RETURNS: 1 stored, or an equal or newer report was there; 0 refused
-- FLAGS: allow-oom
-- USES: record
local values = redis.call('MGET', record, latest)
local flags, current_entry
if values[1] then flags, current_entry = parse_record(values[1]) end
if current_entry ~= entry or state_of(flags) ~= STATE.LIVE then return 0 end
if values[2] then
  local stored_entry, stored_number = string.match(values[2], '^(%S+) (%d+) ')
  if stored_entry == entry and tonumber(stored_number) >= tonumber(number) then return 1 end
end
local report = entry .. ' ' .. number .. ' ' .. at .. ' ' .. state .. ' ' .. meta
redis.call('SET', latest, report, 'PX', ttl)
redis.call('PUBLISH', channel, #report > tonumber(push_limit) and 'l' or 'p' .. report)
return 1
