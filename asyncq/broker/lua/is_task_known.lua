-- Checks whether some worker session that beats knows a task and serves a queue.
-- Caller: a worker that does not know the task.
-- Sent twice: only reads.
-- KEYS: beats
-- ARGV: announcements queue task
-- RETURNS: 1 a session does, 0 none does
-- FLAGS: no-writes
local sessions = redis.call('HGETALL', beats)
for i = 1, #sessions, 2 do
  local known = redis.pcall('HMGET', announcements .. sessions[i], 'q' .. queue, 't' .. task)
  if known[1] and known[2] then return 1 end -- the error of a key that is no hash of ours has neither
end
return 0
