-- Stores what a running job says of itself and tells whoever follows it. The fence: the job is live and its record names this entry.
-- Each report has a number: one that comes again, or late, changes nothing.
-- KEYS: record latest
-- ARGV: entry number at state meta ttl channel push_limit
-- RETURNS: 1 stored, or an equal or newer one stood there; 0 refused
-- FLAGS: allow-oom
-- USES: record
local found = redis.call('MGET', record, latest)
local flags, named
if found[1] then flags, named = parse(found[1]) end
if named ~= entry or string.sub(flags, 1, 1) ~= 'L' then return 0 end
if found[2] then
  local by, count = string.match(found[2], '^(%S+) (%d+) ')
  if by == entry and tonumber(count) >= tonumber(number) then return 1 end
end
local report = entry .. ' ' .. number .. ' ' .. at .. ' ' .. state .. ' ' .. meta
redis.call('SET', latest, report, 'PX', ttl)
redis.call('PUBLISH', channel, #report > tonumber(push_limit) and 'l' or 'p' .. report)
return 1
