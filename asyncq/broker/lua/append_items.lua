-- Appends items that a generator yielded, each under its number, and publishes them to the readers. The fence: the job is live and its record
-- names this entry. Items before a gap must come first. The server once had all items up to `acknowledged`, so a gap below that is no gap.
-- Caller: the stream writer of a worker.
-- Sent twice: appends only numbers that are not there. The same holds for an attempt that yields again from the beginning.
-- KEYS: record items position
-- ARGV: entry channel push_limit ttl acknowledged number (item)*
-- RETURNS: {appended, newest number, number that the furthest reader took or -1, ms since it read} | {refused} | {gap, newest number}
-- USES: record reader_position
local values = redis.call('MGET', record, position)
local flags, current_entry
if values[1] then flags, current_entry = parse_record(values[1]) end
if current_entry ~= entry or state_of(flags) ~= STATE.LIVE then return { ANSWER.REFUSED } end
local last = redis.call('XREVRANGE', items, '+', '-', 'COUNT', 1)[1]
local newest = last and tonumber(string.match(last[1], '^%d+')) or 0
number = tonumber(number)
if number > math.max(newest, tonumber(acknowledged)) + 1 then return { ANSWER.GAP, newest } end
local now = now_ms()
local new_items, sizes, size = {}, {}, 0
for i = first, #ARGV do
  local item_number = number + i - first
  if item_number > newest then
    redis.call('XADD', items, string.format('%d-0', item_number), 'v', ARGV[i])
    new_items[#new_items + 1] = ARGV[i]
    sizes[#sizes + 1] = #ARGV[i]
    size = size + #ARGV[i]
  end
end
redis.call('PEXPIRE', items, ttl)
if #new_items > 0 then
  local from = number + #ARGV - first + 1 - #new_items
  newest = from + #new_items - 1
  if size > tonumber(push_limit) then
    redis.call('PUBLISH', channel, 'n' .. newest)
  else
    redis.call('PUBLISH', channel, 'i' .. from .. ' ' .. table.concat(sizes, ' ') .. '\n' .. table.concat(new_items))
  end
end
local furthest, furthest_at = parse_position(values[2])
return { ANSWER.APPENDED, newest, furthest, now - furthest_at }
