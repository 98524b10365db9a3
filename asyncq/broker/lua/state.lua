-- Reads where a job is. Whether it runs, where and since when follows from the pending list; nothing stores it. A job of a task with
-- `track_started=False` (its request id says so) is shown as queued until its first report.
-- Caller: a client.
-- Sent twice: only reads.
-- KEYS: record latest
-- ARGV: queues group message
-- RETURNS: {unknown} | {ended, record} | {delayed, flags, queue} | {retrying, flags, queue, retries, last error} | {queued, flags, queue, entry} | {running, flags, queue, entry, consumer, started at (ms), latest report or ''}
-- FLAGS: no-writes
-- USES: record
local values = redis.call('MGET', record, latest)
local record_text, report = values[1], values[2]
if not record_text then return { ANSWER.UNKNOWN } end
local flags, entry, queue, request_id = parse_record(record_text)
local state = state_of(flags)
if state == STATE.TOMBSTONE then return { ANSWER.UNKNOWN } end
if not is_live(flags) then return { ANSWER.ENDED, record_text } end
if state == STATE.SCHEDULED or state == STATE.DEFERRED or state == STATE.WAITING then return { ANSWER.DELAYED, flags, queue } end
if state == STATE.RETRYING then
  local failure = redis.call('HMGET', message, 'a', 'e')
  return { ANSWER.RETRYING, flags, queue, tonumber(failure[1]) or 0, failure[2] or '' }
end
local holder = holder_of(queues .. queue, group, entry)
if not holder then return { ANSWER.QUEUED, flags, queue, entry } end
-- A report under another entry is from an earlier attempt.
if not report or string.match(report, '^%S+') ~= entry then report = '' end
if report == '' and string.find(request_id, REQUEST.HIDES_START, 1, true) then return { ANSWER.QUEUED, flags, queue, entry } end
local time = redis.call('TIME')
return { ANSWER.RUNNING, flags, queue, entry, holder[2], time[1] * 1000 + math.floor(time[2] / 1000) - holder[3], report }
