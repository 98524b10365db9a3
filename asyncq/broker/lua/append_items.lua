-- Appends what a generator yielded, each item under its number, and tells the readers. The fence: the job is live and its record names
-- this entry. Only numbers that are not there yet: a call that comes twice, and an attempt that yields again from the beginning, add
-- nothing twice. Items before a gap must come first; up to `known` the server had them all.
-- KEYS: record items position
-- ARGV: entry channel push_limit ttl acknowledged number (item)*
-- RETURNS: {newest number, number that the furthest reader took or -1, ms since it read} | {-1} refused | {-2, newest number} a gap
-- USES: record reader_position
local found = redis.call('MGET', record, position)
local flags, named
if found[1] then flags, named = parse(found[1]) end
if named ~= entry or string.sub(flags, 1, 1) ~= 'L' then return { -1 } end
local last = redis.call('XREVRANGE', items, '+', '-', 'COUNT', 1)[1]
local newest = last and tonumber(string.match(last[1], '^%d+')) or 0
number = tonumber(number)
if number > math.max(newest, tonumber(acknowledged)) + 1 then return { -2, newest } end
local now = now_ms()
local new, sizes, size = {}, {}, 0
for i = first, #ARGV do
  local at = number + i - first
  if at > newest then
    redis.call('XADD', items, string.format('%d-0', at), 'v', ARGV[i])
    new[#new + 1] = ARGV[i]
    sizes[#sizes + 1] = #ARGV[i]
    size = size + #ARGV[i]
  end
end
redis.call('PEXPIRE', items, ttl)
if #new > 0 then
  local from = number + #ARGV - first + 1 - #new
  newest = from + #new - 1
  if size > tonumber(push_limit) then
    redis.call('PUBLISH', channel, 'n' .. newest)
  else
    redis.call('PUBLISH', channel, 'i' .. from .. ' ' .. table.concat(sizes, ' ') .. '\n' .. table.concat(new))
  end
end
local taken, at = parse_position(found[2])
return { newest, taken, now - at }
