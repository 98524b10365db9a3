-- Whether a worker session that beats knows a task and serves a queue.
-- KEYS: beats
-- ARGV: announcements queue task
-- RETURNS: 1 one does, 0 none does
-- FLAGS: no-writes
local listed = redis.call('HGETALL', beats)
for i = 1, #listed, 2 do
  local said = redis.pcall('HMGET', announcements .. listed[i], 'q' .. queue, 't' .. task)
  if said[1] and said[2] then return 1 end -- an error, of a key that is no hash of ours, has neither
end
return 0
