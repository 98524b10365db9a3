-- Describes jobs that wait for their time or for other jobs: what their records and messages say.
-- Caller: a client, for a listing of jobs.
-- Sent twice: only reads.
-- ARGV: records messages (id)*
-- RETURNS: for each {} if it waits for neither any more, else {letter, queue, task, enqueued at (ms), crashes, retries, its last error or ''}; fewer than asked for if they have enough bytes
-- FLAGS: no-writes
-- USES: record queues
local described, bytes, keys = {}, 0, {}
for i = first, #ARGV do keys[#keys + 1] = records .. ARGV[i] end
for k, record in ipairs(redis.call('MGET', unpack(keys))) do
  if bytes >= MAX_MOVED_BYTES then break end
  local flags, _, queue
  if record then flags, _, queue = parse_record(record) end
  described[k] = {}
  if flags and state_of(flags) ~= STATE.LIVE and is_live(flags) then
    local content = redis.pcall('HMGET', messages .. ARGV[first + k - 1], 'm', 'c', 'a', 'e')
    local task, enqueued = call_in(content[1])
    bytes = bytes + #(content[1] or '') + #(content[4] or '')
    described[k] = { state_of(flags), queue, task, enqueued, tonumber(content[2]) or 0, tonumber(content[3]) or 0, content[4] or '' }
  end
end
return described
