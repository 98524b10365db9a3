-- Accepts the jobs of a workflow that lie in this shard, as the outbox of another brings them. Again is once. A job whose id another call
-- took meanwhile cannot be: those that wait for it are told so.
-- ARGV: key_prefix from entry channel push_limit refusal (id queue request_id flags wait ttl parents dependents wants_values message)*
-- RETURNS: how much there is in this shard's own outbox now
-- FLAGS: allow-oom
-- USES: record workflow inbox
if is_news(from, entry) then
  local new, refused = {}, {}
  for i = first, #ARGV, stride do
    local claim, left = claim_to(ARGV[i], ARGV[i + 2])
    if left then make_room(ARGV[i], left) end
    local list = claim == 'free' and new or refused
    list[#list + 1] = i
  end
  for _, i in ipairs(new) do admit_at(i, channel) end
  local ended = {}
  for _, i in ipairs(refused) do
    hand_down(ended_job(ARGV[i], ARGV[i + 2], 'F', refusal), edges_in(ARGV[i + 7]), tonumber(push_limit), ended)
  end
  settle(ended, tonumber(push_limit))
  heard(from, entry)
end
return redis.call('XLEN', key_prefix .. 'out')
