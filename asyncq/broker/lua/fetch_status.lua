-- How jobs stand: the record of an ended one, the flags of a live one, false for one that is unknown. With a channel, a live job's
-- waiters are joined by it in the same step, so that no ending can fall between the look and the wait.
-- ARGV: records channel max_bytes (id)*
-- RETURNS: for each: record | flags, and after a space when it expires if it does | false; nothing for those that are left where there are enough bytes
-- FLAGS: allow-oom
-- USES: record
local answers, bytes = {}, 0
for at = first, #ARGV, 4 do
  if bytes >= tonumber(max_bytes) then break end
  -- Few at a time, for each may be as large as a result.
  local keys = {}
  for i = at, math.min(at + 3, #ARGV) do keys[#keys + 1] = records .. ARGV[i] end
  for k, record in ipairs(redis.call('MGET', unpack(keys))) do
    answers[#answers + 1] = status_of(keys[k], record, channel)
    bytes = bytes + (record and #record or 0)
  end
end
return answers
