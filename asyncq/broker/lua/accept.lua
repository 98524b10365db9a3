-- Accepts the jobs of a workflow that lie in this shard, as the outbox of another brings them. Sent again, it finds its own nonces: once. A
-- job whose id another call took meanwhile cannot be: those that wait for it are told so.
-- ARGV: space asked patience channel push_limit refusal (id queue nonce flags wait ttl parents dependents on keeps message)*
-- RETURNS: 1 accepted, also before | 0 the outbox was read too long ago: what it held may have happened meanwhile, and been forgotten
-- FLAGS: allow-oom
-- USES: record workflow
if now_ms() - tonumber(asked) > tonumber(patience) then return 0 end
local new, refused = {}, {}
for i = first, #ARGV, stride do
  local record = redis.call('MGET', space .. 'r:' .. ARGV[i])[1]
  if not record then
    new[#new + 1] = i
  elseif not same_call(string.match(record, '^.... %S+ %S+ (%S+)'), ARGV[i + 2]) then
    refused[#refused + 1] = i
  end
end
for _, i in ipairs(new) do admit_at(i, channel) end
local ended = {}
for _, i in ipairs(refused) do
  for child, edge in string.gmatch(ARGV[i + 7], EACH_EDGE) do
    ended[#ended + 1] = hand_down(child, edge, ARGV[i], 'F', refusal, tonumber(push_limit))
  end
end
settle(ended, tonumber(push_limit))
return 1
