-- Ends a job that no worker has. Signals a job that a worker has, and notifies that worker. The signal is in the record, so it outlives the
-- notification: a retry, a takeover or a hand-back ends the job instead.
-- Caller: a client that revokes a job or whose job expires; a worker, for a delayed job whose message is lost.
-- Sent twice: the job has ended, or has the signal already.
-- KEYS: record delayed
-- ARGV: key_prefix id group letter outcome ttl push_limit signals_prefix signal signals_ttl reason parents
-- RETURNS: {unknown | ended | revoked | signalled | running (an expiry, or no signal: the worker goes on), and the ids of its parents if they are a workflow in its place (see replace) or `parents` asks for them} | {ends, the same, ended jobs}
-- FLAGS: allow-oom
-- USES: record workflow
local record_text = redis.call('MGET', record)[1]
if not record_text then return { 'unknown' } end
local flags, entry, queue, request_id, channels = parse_record(record_text)
local state = state_of(flags)
if state == STATE.TOMBSTONE then return { 'unknown' } end
if not is_live(flags) then return { 'ended' } end
if letter == STATE.EXPIRED and string.sub(request_id, -2) == REQUEST.STARTED then return { 'running' } end -- a workflow has replaced it, see replace
-- A job that has started in time and failed does not expire between two tries: it ends with its last failure.
local function use_last_failure(last)
  if last then letter, outcome = STATE.FAILED, last end
end
if state ~= STATE.LIVE then
  local message, answer = key_prefix .. KEY.MESSAGES .. id, { 'revoked' }
  if state == STATE.WAITING then
    local fields = redis.call('HMGET', message, 'p', 'r')
    -- A workflow that has replaced this job is known by this job only, so the caller must revoke its members.
    if fields[2] or parents ~= '' then
      for parent in string.gmatch(fields[1] or '', '%S+') do answer[#answer + 1] = parent end
    end
  end
  if letter == STATE.EXPIRED then use_last_failure(redis.call('HMGET', message, 'l')[1]) end
  report_end(id, letter, queue, redis.pcall('HMGET', message, 'm')[1], outcome) -- somebody may have written another type there
  redis.call('ZREM', delayed, id)
  redis.call('DEL', message)
  end_job(id, flags, entry, '-', request_id, channels, letter, outcome, ttl, push_limit)
  return with_ends(answer)
end
if signal == '' then return { 'running' } end
local stream = key_prefix .. KEY.QUEUES .. queue
local holder = holder_of(stream, group, entry)
if holder then
  if letter == STATE.EXPIRED then return { 'running' } end
  -- A stronger signal replaces a weaker one, never the other way round.
  local strength, signals = string.find(SIGNAL.BY_STRENGTH, signal_of(flags), 1, true) or 1, signals_prefix .. holder[2]
  local previous = redis.call('HMGET', signals, id)[1]
  local strongest = signal
  if string.find(SIGNAL.BY_STRENGTH, signal, 1, true) > strength then
    redis.call('SETRANGE', record, 1, signal)
  elseif previous then
    strongest = string.sub(previous, 1, 1)
  end
  -- One field for each job: the end of a job can remove its own field without reading the others.
  redis.call('HSET', signals, id, strongest .. (reason ~= '' and reason or string.sub(previous or '', 2)))
  redis.call('PEXPIRE', signals, signals_ttl)
  redis.call('PUBLISH', signals, reason == '' and signal .. id or signal .. id .. ' ' .. reason)
  return { 'signalled' }
end
local content = redis.call('XRANGE', stream, entry, entry)[1]
local fields = content and content[2] or {}
if letter == STATE.EXPIRED then
  for i = 1, #fields, 2 do if fields[i] == 'l' then use_last_failure(fields[i + 1]) end end
end
redis.call('XDEL', stream, entry)
report_end(id, letter, queue, message_in(fields), outcome)
end_job(id, flags, entry, '-', request_id, channels, letter, outcome, ttl, push_limit)
local answer = { 'revoked' }
return with_ends(answer)
