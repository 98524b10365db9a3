-- Reads schedules, and the server's clock.
-- Caller: a client that lists or changes schedules, and a worker that begins.
-- Sent twice: only reads.
-- ARGV: key_prefix (name)*
-- RETURNS: {time (ms), {field, value...} of each, empty if there is none...}
-- FLAGS: no-writes
-- USES: record
local answer = { now_ms() }
for i = first, #ARGV do
  local fields = redis.pcall('HGETALL', key_prefix .. KEY.SCHEDULES .. ARGV[i])
  answer[#answer + 1] = fields['err'] and {} or fields
end
return answer
