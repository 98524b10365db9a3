-- Accepts all jobs of a workflow, parents before children, or none of them. Members of other shards, and members that are too many for one
-- call, are in `batches` for the outbox: they are accepted in this step, and delivered to their shard (which may be this one) later. `more`
-- lists, for each queue, how many of them will be ready in this shard at once, and under an empty name how many will wait for their time.
-- Caller: a client.
-- Sent twice: the jobs are found by their request ids, so nothing is written.
-- ARGV: key_prefix channel max_length batches more (id queue request_id flags wait ttl parents dependents wants_values message)*
-- RETURNS: {accepted} | {queue full} | {too many delayed} | {ids taken, the ids that other jobs have or that are there twice...}
-- USES: record workflow
local ready, delayed_jobs = {}, 0
local taken, is_resent_call, tombstones = check_ids(first, stride)
if is_resent_call then return { ANSWER.ACCEPTED } end
if #taken > 0 then return { ANSWER.IDS_TAKEN, unpack(taken) } end
for i = first, #ARGV, stride do
  if ARGV[i + 4] ~= '' then
    delayed_jobs = delayed_jobs + 1
  elseif ARGV[i + 6] == '' then
    ready[ARGV[i + 1]] = (ready[ARGV[i + 1]] or 0) + 1
  end
end
local in_batches = more ~= '' and cmsgpack.unpack(more) or {}
for i = 1, #in_batches, 2 do
  if in_batches[i] == '' then delayed_jobs = delayed_jobs + in_batches[i + 1] else ready[in_batches[i]] = (ready[in_batches[i]] or 0) + in_batches[i + 1] end
end
if delayed_jobs > 0 and redis.call('ZCARD', key_prefix .. KEY.DELAYED) + delayed_jobs > tonumber(max_length) then return { ANSWER.TOO_MANY_DELAYED } end
for queue, more in pairs(ready) do
  if queue_length(key_prefix .. KEY.QUEUES .. queue) + more > tonumber(max_length) then return { ANSWER.QUEUE_FULL } end
end
accept_jobs(first, stride, channel, batches, tombstones)
return { ANSWER.ACCEPTED }
