-- A look at the other workers, which each makes three times a lease: who has not beaten since an earlier look of the same observer, and who was
-- taken for dead since its last one. It costs the same however many workers there are.
-- KEYS: beats beaten looks
-- ARGV: before last keep
-- RETURNS: {number of this look, {incarnation that has not beaten since the look `before`, count of its beats}..., {incarnation that was taken since the look `last`}...}
-- FLAGS: allow-oom
-- USES: looks
local look = next_look(looks, keep)
local answer = { look }
local found = redis.call('ZRANGEBYSCORE', beaten, -look, '(' .. before, 'WITHSCORES')
for i = 1, #found, 2 do
  local name, number = found[i], tonumber(found[i + 1])
  if number > 0 then
    answer[#answer + 1] = { name, redis.call('HGET', beats, name) }
  elseif -number >= tonumber(last) then
    answer[#answer + 1] = { name }
  elseif look + number > tonumber(keep) then
    redis.call('ZREM', beaten, name)
  end
end
return answer
