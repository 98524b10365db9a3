-- For whom jobs wait, to be followed into other shards.
-- ARGV: key_prefix (id)*
-- RETURNS: for each: the ids of those that it waits for
-- FLAGS: no-writes
-- USES: record waits
local answers = {}
for i = first, #ARGV do
  local found = redis.call('MGET', key_prefix .. 'r:' .. ARGV[i])[1]
  answers[#answers + 1] = found and awaited_by(ARGV[i], found) or {}
end
return answers
