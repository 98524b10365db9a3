-- Lists jobs of one stream in the order of their entries: those that wait, or those that workers have. Reads some hundred at a time, and
-- no more than some megabytes.
-- Caller: a client, for a listing of jobs; again from where the answer ends.
-- Sent twice: only reads.
-- KEYS: stream
-- ARGV: group kind after max_entries consumer
-- RETURNS: {the last entry that was looked at, '' at the end, {id, entry, task, enqueued at (ms), crashes, retries, consumer or '', claimed at (ms)}...}
-- FLAGS: no-writes
-- USES: record queues
local most, bytes, last, listed = tonumber(max_entries), 0, '', {}

local function add(entry, content, holder, claimed_at)
  local fields = {}
  for i = 1, #content, 2 do fields[content[i]] = content[i + 1] end
  local task, enqueued = call_in(fields['m'])
  listed[#listed + 1] = { fields['i'] or '', entry, task, enqueued, tonumber(fields['c']) or 0, tonumber(fields['a']) or 0, holder, claimed_at }
end

local function order(entry)
  local ms, number = string.match(entry, '(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(number)
end

local _, held, start = entries_of(stream, group)
if not start then return { '' } end

if kind == 'waiting' then
  if after ~= '' then
    local ms, number = order(after)
    local last_ms, last_number = order(start)
    -- What was listed as waiting may have been read since.
    if not last_ms or ms > last_ms or (ms == last_ms and number > last_number) then start = '(' .. after end
  end
  local looked_at = 0
  while looked_at < most and bytes < MAX_MOVED_BYTES do
    -- Some at a time: of long messages a thousand would be too many for the memory of a script.
    local some = redis.call('XRANGE', stream, start, '+', 'COUNT', math.min(most - looked_at, bytes > 1000 * looked_at and 10 or 100))
    if #some == 0 then return { '', unpack(listed) } end
    for _, item in ipairs(some) do
      looked_at, last, start = looked_at + 1, item[1], '(' .. item[1]
      bytes = bytes + count_bytes(item[2])
      add(item[1], item[2], '', 0)
    end
  end
  return { last, unpack(listed) }
end

local arguments = { after == '' and '-' or '(' .. after, '+', max_entries }
if consumer ~= '' then arguments[4] = consumer end
if held == 0 then return { '' } end
local now, pending = now_ms(), redis.call('XPENDING', stream, group, unpack(arguments))
for k, item in ipairs(pending) do
  if bytes >= MAX_MOVED_BYTES then break end
  last = item[1]
  local content = redis.call('XRANGE', stream, item[1], item[1])[1]
  if content then
    bytes = bytes + count_bytes(content[2])
    add(item[1], content[2], item[2], now - item[3])
  end
  if k == #pending and k < most then last = '' end
end
return { last, unpack(listed) }
