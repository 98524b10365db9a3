-- A look at the other workers, which each makes three times a lease: who has not beaten since an earlier look of the same observer, and who was
-- taken for dead since its last one. It costs the same however many workers there are.
-- The observer leaves word how old its looks are: whoever looks for the first time goes on where it was.
-- KEYS: beats beaten looks ages
-- ARGV: before last keep own_ages
-- RETURNS: {number of this look, what an observer before said of the ages of its looks, {session_id that has not beaten since the look `before`, count of its beats}..., {session_id that was taken since the look `last`}...}
-- FLAGS: allow-oom
-- USES: observations
local look = next_look(looks, keep)
local answer = { look, redis.call('MGET', ages)[1] or '' }
if own_ages ~= '' then redis.call('SET', ages, string.format('%.0f', look) .. ' ' .. own_ages, 'PX', keep) end
-- Each beat writes to both. Where somebody has damaged one of them, whoever has no number of a look gets this one: else nobody would ever see
-- that it has stopped.
if redis.call('HLEN', beats) ~= redis.call('ZCOUNT', beaten, 1, look) then
  local all = redis.call('HGETALL', beats)
  for i = 1, #all, 2 do
    local name = all[i]
    local number = tonumber(redis.call('ZSCORE', beaten, name))
    if not number or number < 1 or number > look then redis.call('ZADD', beaten, look, name) end
  end
end
local found = redis.call('ZRANGEBYSCORE', beaten, -look, '(' .. before, 'WITHSCORES')
for i = 1, #found, 2 do
  local name, number = found[i], tonumber(found[i + 1])
  if number > 0 then
    local count = redis.call('HGET', beats, name)
    answer[#answer + 1] = { name, count }
    if not count then redis.call('ZADD', beaten, -look, name) end -- somebody has deleted it: as one that was taken
  elseif -number >= tonumber(last) then
    answer[#answer + 1] = { name }
  elseif look + number > tonumber(keep) then
    redis.call('ZREM', beaten, name)
  end
end
return answer
