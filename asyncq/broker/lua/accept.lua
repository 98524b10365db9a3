-- Accepts the jobs of a batch: members of a workflow that belong to this shard, from the outbox of the shard that accepted the workflow. If
-- another call has taken the id of a job meanwhile, that job is not accepted, and the jobs that wait for it end as failed.
-- Caller: the forwarder.
-- Sent twice: the shard stores the last outbox entry that it applied, so an older or equal one changes nothing.
-- ARGV: key_prefix from entry channel push_limit refusal (id queue request_id flags wait ttl parents dependents wants_values message)*
-- RETURNS: the number of entries in this shard's own outbox now | {ends, the same, ended jobs}
-- FLAGS: allow-oom
-- USES: record workflow inbox
if is_new_entry(from, entry) then
  local accepted, refused = {}, {}
  for i = first, #ARGV, stride do
    local answer, earlier_id = check_id(ARGV[i], ARGV[i + 2])
    if earlier_id then replace_tombstone(ARGV[i], earlier_id) end
    -- What is here 'again' stays as it is: the accepting shard has lost this workflow in a failover, and its client has sent it once more.
    if answer == 'free' then accepted[#accepted + 1] = i elseif answer == 'taken' then refused[#refused + 1] = i end
  end
  for _, i in ipairs(accepted) do accept_job_at(i, channel) end
  local ended = {}
  for _, i in ipairs(refused) do
    deliver_end(ended_job(ARGV[i], ARGV[i + 2], STATE.FAILED, refusal), parse_edges(ARGV[i + 7]), tonumber(push_limit), ended)
  end
  deliver_all(ended, tonumber(push_limit))
  store_offset(from, entry)
end
local answer = redis.call('XLEN', key_prefix .. KEY.OUTBOX)
return with_ends(answer)
