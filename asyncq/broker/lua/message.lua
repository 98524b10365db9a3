-- Reads the message of a job that has not ended, from its entry or from where a delayed job keeps it.
-- Caller: a client with `result_extended`.
-- Sent twice: only reads.
-- KEYS: record message
-- ARGV: queues
-- RETURNS: {unknown} also of an ended job | {found, message, values of its parents or ''}
-- FLAGS: no-writes
-- USES: record
local found = redis.call('MGET', record)[1]
if not found or not is_live(found) then return { ANSWER.UNKNOWN } end
local flags, entry, queue = parse_record(found)
if not is_live(flags) then return { ANSWER.UNKNOWN } end
if entry == '0' then
  local kept = redis.call('HMGET', message, 'm', 'v')
  return kept[1] and { ANSWER.FOUND, kept[1], kept[2] or '' } or { ANSWER.UNKNOWN }
end
local item = redis.call('XRANGE', queues .. queue, entry, entry)[1]
local fields = {}
for i = 1, item and #item[2] or 0, 2 do fields[item[2][i]] = item[2][i + 1] end
return fields['m'] and { ANSWER.FOUND, fields['m'], fields['v'] or '' } or { ANSWER.UNKNOWN }
