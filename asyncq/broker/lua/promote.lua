-- Moves due jobs into their queues, each exactly once: only jobs whose records still say that they are delayed. A damaged job must not
-- block the due jobs behind it: it is delayed for a minute, and named in the answer, so that the caller can end it. Also continues
-- deliveries that deliver_later stored.
-- Caller: every worker, when a job is due.
-- Sent twice: the jobs are not delayed any more, so none is moved again.
-- KEYS: delayed
-- ARGV: key_prefix records messages queues max_jobs events expected push_limit
-- RETURNS: {moved, ms until the next is due (-1 if none), monotonic time (ms), {id, 1 if its message is lost, the error}...} | {ends, the same, ended jobs}
-- FLAGS: allow-oom
-- USES: record monotonic workflow
-- RARELY: continue_delivery
local ENTRY_FIELDS = { 'm', 'c', 'a', 'v', 'g', 'u', 'l' }
local now = now_ms()
local monotonic_now = monotonic_ms(key_prefix, now, expected)
local moved, damaged, bytes = 0, {}, 0

-- Adds a due job to its queue. Returns its entry; nil if its record does not say that it is delayed (any more); nil and an error if its
-- message is lost.
local function promote_job(id)
  local record = redis.call('MGET', records .. id)[1]
  local flags, _, queue, request_id, channels
  if record then flags, _, queue, request_id, channels = parse_record(record) end
  if not flags or not string.find(flags, '^[' .. STATE.SCHEDULED .. STATE.RETRYING .. STATE.DEFERRED .. ']') then return nil end
  local content, fields = redis.pcall('HMGET', messages .. id, unpack(ENTRY_FIELDS)), { 'i', id }
  if not content[1] then return nil, content['err'] or 'its message is gone' end
  for k, name in ipairs(ENTRY_FIELDS) do
    if content[k] then
      fields[#fields + 1] = name
      fields[#fields + 1] = content[k]
    end
  end
  use_level(key_prefix, queue)
  local entry = redis.call('XADD', queues .. queue, '*', unpack(fields))
  redis.call('SET', records .. id, STATE.LIVE .. flags_of(flags) .. ' ' .. entry .. ' ' .. queue .. ' ' .. request_id .. channels)
  redis.call('PUBLISH', events .. id, 'q' .. entry)
  bytes = bytes + count_bytes(fields)
  return entry
end

-- Handles one due member of the delayed set: a job, or a delivery to continue. Returns an error if a job's message is lost.
local function promote_member(id)
  if string.sub(id, 1, 1) == ' ' then
    continue_delivery(string.sub(id, 2), tonumber(push_limit))
    return
  end
  local entry, problem = promote_job(id)
  if problem then return problem end
  if entry then moved = moved + 1 end
  redis.call('DEL', messages .. id)
  redis.call('ZREM', delayed, id)
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, max_jobs)) do
  if bytes >= MAX_MOVED_BYTES then break end
  local is_whole, problem = pcall(promote_member, id)
  if problem then
    redis.call('ZADD', delayed, now + 60000, id)
    damaged[#damaged + 1] = { id, is_whole and 1 or 0, type(problem) == 'table' and problem['err'] or tostring(problem) }
  end
end
local head = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
local answer = { moved, head[2] and math.max(0, head[2] - now) or -1, monotonic_now, unpack(damaged) }
return with_ends(answer)
