-- Tells jobs that wait here how jobs of another shard ended, as the outbox of that one brings it. Again is once.
-- ARGV: key_prefix from push_limit (entry parent request_id letter outcome waiting)*
-- RETURNS: how much there is in this shard's own outbox now
-- FLAGS: allow-oom
-- USES: record workflow inbox
local ended, last = {}, nil
for i = first, #ARGV, stride do
  if is_news(from, ARGV[i]) then
    local job = ended_job(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
    hand_down(job, edges_in(ARGV[i + 5]), tonumber(push_limit), ended)
    last = ARGV[i]
  end
end
settle(ended, tonumber(push_limit))
if last then heard(from, last) end
return redis.call('XLEN', key_prefix .. 'out')
