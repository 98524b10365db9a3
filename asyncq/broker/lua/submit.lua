-- Accepts all jobs of a workflow, parents before children, or none of them. A call that is sent again finds its own request ids: accepted, once.
-- Those that lie in other shards, and those that are too many for one call, are in batches, for the outbox: accepted with the rest, and brought
-- to their shard, which may be this one. `more` has the queue and the number of those that will be ready here at once; no queue: that wait for their time.
-- ARGV: key_prefix channel max_length batches more (id queue request_id flags wait ttl parents dependents wants_values message)*
-- RETURNS: the number of jobs that are not in batches, or -1 if a queue is full, or -2 if too many jobs wait for their time, or the ids that other jobs have or that are there twice
-- USES: record workflow
local count, ready, later = (#ARGV - first + 1) / stride, {}, 0
local taken, again, left = taken_among(first, stride)
if again then return count end
if #taken > 0 then return taken end
for i = first, #ARGV, stride do
  if ARGV[i + 4] ~= '' then
    later = later + 1
  elseif ARGV[i + 6] == '' then
    ready[ARGV[i + 1]] = (ready[ARGV[i + 1]] or 0) + 1
  end
end
local others = more ~= '' and cmsgpack.unpack(more) or {}
for i = 1, #others, 2 do
  if others[i] == '' then later = later + others[i + 1] else ready[others[i]] = (ready[others[i]] or 0) + others[i + 1] end
end
if later > 0 and redis.call('ZCARD', key_prefix .. 'd') + later > tonumber(max_length) then return -2 end
for queue, more in pairs(ready) do
  if waiting_in(key_prefix .. 'q:' .. queue) + more > tonumber(max_length) then return -1 end
end
admit_all(first, stride, channel, batches, left)
return count
