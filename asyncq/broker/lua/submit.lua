-- Accepts all jobs of a workflow, parents before children, or none of them. A call that is sent again finds its own nonces: accepted, once.
-- ARGV: space channel max_length (id queue nonce flags wait ttl parents on keeps message)*
-- RETURNS: the number of jobs, or -1 if a queue is full, or the ids that other jobs have
-- USES: record workflow
local taken, count, ready = {}, 0, {}
for i = first, #ARGV, stride do
  count = count + 1
  local record = redis.call('MGET', space .. 'r:' .. ARGV[i])[1]
  if record then
    if string.match(record, '^.... %S+ %S+ (%S+)') == ARGV[i + 2] then return (#ARGV - first + 1) / stride end
    taken[#taken + 1] = ARGV[i]
  end
  if ARGV[i + 6] == '' and ARGV[i + 4] == '' then ready[ARGV[i + 1]] = (ready[ARGV[i + 1]] or 0) + 1 end
end
if #taken > 0 then return taken end
for queue, more in pairs(ready) do
  if redis.call('XLEN', space .. 'q:' .. queue) + more > tonumber(max_length) then return -1 end
end
for i = first, #ARGV, stride do
  local flags = ARGV[i + 3]
  local channels = string.sub(flags, 2, 2) == 'i' and ' ' or ' ' .. channel -- nobody is told of a result that is ignored
  admit(ARGV[i], ARGV[i + 1], ARGV[i + 2], flags, ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7], ARGV[i + 8], ARGV[i + 9], channels)
end
return count
