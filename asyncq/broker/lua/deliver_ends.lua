-- Delivers the ends of jobs of another shard to the jobs that wait for them in this shard, from the outbox of the other shard.
-- Caller: the forwarder.
-- Sent twice: the shard stores the last outbox entry that it applied, so an older or equal one changes nothing.
-- ARGV: key_prefix from push_limit (entry parent request_id letter outcome waiting)*
-- RETURNS: the number of entries in this shard's own outbox now | {ends, the same, ended jobs}
-- FLAGS: allow-oom
-- USES: record workflow inbox
local ended, last_entry = {}, nil
for i = first, #ARGV, stride do
  if is_new_entry(from, ARGV[i]) then
    local parent_job = ended_job(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
    deliver_end(parent_job, parse_edges(ARGV[i + 5]), tonumber(push_limit), ended)
    last_entry = ARGV[i]
  end
end
deliver_all(ended, tonumber(push_limit))
if last_entry then store_offset(from, last_entry) end
local answer = redis.call('XLEN', key_prefix .. KEY.OUTBOX)
return with_ends(answer)
