-- Reads the status of jobs: the record of an ended job, the flags of a live one. If a channel is given, it is added to the record of each
-- live job in the same step, so no end can fall between the read and the wait.
-- Caller: a client.
-- Sent twice: a channel is added once.
-- ARGV: records channel max_bytes (id)*
-- RETURNS: for each: record | flags, and after a space when it expires if it does | false; fewer than asked for if the answer has enough bytes
-- FLAGS: allow-oom
-- USES: record
local answers, bytes = {}, 0
for at = first, #ARGV, 4 do
  if bytes >= tonumber(max_bytes) then break end
  -- Few at a time: each may be as large as a result.
  local keys = {}
  for i = at, math.min(at + 3, #ARGV) do keys[#keys + 1] = records .. ARGV[i] end
  for k, record in ipairs(redis.call('MGET', unpack(keys))) do
    answers[#answers + 1] = status_of(keys[k], record, channel)
    bytes = bytes + (record and #record or 0)
  end
end
return answers
