-- How jobs stand: the record of an ended one, the flags of a live one, false for one that is unknown. With a channel, a live job's
-- waiters are joined by it in the same step, so that no ending can fall between the look and the wait.
-- ARGV: records channel (id)*
-- RETURNS: for each: record | flags, and after a space when it expires if it does | false
-- FLAGS: allow-oom
-- USES: record
local keys = {}
for i = first, #ARGV do keys[#keys + 1] = records .. ARGV[i] end
local answers = redis.call('MGET', unpack(keys))
for k, record in ipairs(answers) do answers[k] = standing(keys[k], record, channel) end
return answers
