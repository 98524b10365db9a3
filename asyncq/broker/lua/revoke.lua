-- Ends a job that no worker has; signals one that a worker has, and tells that worker. The signal outlives the notification: it is in the
-- record, so a retry, a takeover or a hand-back ends the job instead.
-- KEYS: record delayed
-- ARGV: key_prefix id group letter outcome ttl push_limit signals_prefix signal signals_ttl reason parents
-- RETURNS: {unknown | ended | revoked | signalled | running (only for an expiry: the worker looks at the time itself; and without a signal: only a job that has no entry ends), and the ids of those that it waited for, if they stand in its place (see replace) or `parents` asks for them}
-- FLAGS: allow-oom
-- USES: record workflow
local found = redis.call('MGET', record)[1]
if not found then return { 'unknown' } end
local flags, entry, queue, request_id, channels = parse(found)
local state = string.sub(flags, 1, 1)
if state == 'T' then return { 'unknown' } end
if not is_live(flags) then return { 'ended' } end
if letter == 'E' and string.sub(request_id, -2) == '~-' then return { 'running' } end -- a workflow took its place, see replace
-- A job that has started in time and failed does not expire between two tries: its own failure stands.
local function use_last(last)
  if last then letter, outcome = 'F', last end
end
if state ~= 'L' then
  local message, answer = key_prefix .. 'm:' .. id, { 'revoked' }
  if state == 'W' then
    local above = redis.call('HMGET', message, 'p', 'r')
    -- Nobody else would end a workflow that stands in this job's place: nothing but the job shows it.
    if above[2] or parents ~= '' then
      for parent in string.gmatch(above[1] or '', '%S+') do answer[#answer + 1] = parent end
    end
  end
  if letter == 'E' then use_last(redis.call('HMGET', message, 'l')[1]) end
  redis.call('ZREM', delayed, id)
  redis.call('DEL', message)
  conclude(id, flags, entry, '-', request_id, channels, letter, outcome, ttl, push_limit)
  return answer
end
if signal == '' then return { 'running' } end
local stream = key_prefix .. 'q:' .. queue
local holder = holder_of(stream, group, entry)
if holder then
  if letter == 'E' then return { 'running' } end
  -- A stronger signal replaces a weaker one, never the other way round.
  local strength, signals = string.find('-citk', string.sub(flags, 2, 2), 1, true) or 1, signals_prefix .. holder[2]
  local before = redis.call('HMGET', signals, id)[1]
  local strongest = signal
  if string.find('-citk', signal, 1, true) > strength then
    redis.call('SETRANGE', record, 1, signal)
  elseif before then
    strongest = string.sub(before, 1, 1)
  end
  -- A field for each job, and not a member for each signal: the end of a job takes its own away without a look at all others.
  redis.call('HSET', signals, id, strongest .. (reason ~= '' and reason or string.sub(before or '', 2)))
  redis.call('PEXPIRE', signals, signals_ttl)
  redis.call('PUBLISH', signals, reason == '' and signal .. id or signal .. id .. ' ' .. reason)
  return { 'signalled' }
end
if letter == 'E' then
  local content = redis.call('XRANGE', stream, entry, entry)[1]
  for i = 1, content and #content[2] or 0, 2 do
    if content[2][i] == 'l' then use_last(content[2][i + 1]) end
  end
end
redis.call('XDEL', stream, entry)
conclude(id, flags, entry, '-', request_id, channels, letter, outcome, ttl, push_limit)
return { 'revoked' }
