-- Reads for which jobs other jobs wait, so that the caller can follow the waits into other shards.
-- Caller: the deadlock guard, if there are several shards.
-- Sent twice: only reads.
-- ARGV: key_prefix (id)*
-- RETURNS: for each: the ids of the jobs that it waits for
-- FLAGS: no-writes
-- USES: record waits
local answers = {}
for i = first, #ARGV do
  local found = redis.call('MGET', key_prefix .. KEY.RECORDS .. ARGV[i])[1]
  answers[#answers + 1] = found and awaited_by(ARGV[i], found) or {}
end
return answers
