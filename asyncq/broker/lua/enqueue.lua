-- Accepts jobs into one queue, or for a later time. A job already there with the same request id is this very call, sent again: accepted,
-- once. A call with a key has a request id in two parts, and finds the job of an equal call by the first. The tombstone of another call makes
-- room; that call's request id is kept under a key of its own for as long as the tombstone would have stood, for it may be sent again, too.
-- KEYS: stream
-- ARGV: key_prefix queue channel max_length (id request_id flags wait message)*
-- RETURNS: the number of jobs if all were accepted, else for each: 1 accepted, 0 another job has this id, or of the job of an equal call what look says; -1 if the queue is full, -2 if too many jobs wait for their time
-- USES: record
-- RARELY: status_of delay waiting_in
local keys = {}
for i = first, #ARGV, stride do keys[#keys + 1] = key_prefix .. 'r:' .. ARGV[i] end
local found = redis.call('MGET', unpack(keys))
local before -- of a call whose id stood for it before: true; of one that a tombstone makes room for: the key of the tombstone's call
for k, record in ipairs(found) do
  if record then
    local i = first + (k - 1) * stride
    local request_id, known = ARGV[i + 1], string.match(record, '^.... %S+ %S+ (%S+)') or ''
    local is_tombstone = string.sub(record, 1, 1) == 'T'
    if not same_call(known, request_id) and (is_tombstone or not string.find(request_id, '^%x+%.')) then
      -- As was_there and make_room, which would be made anew for each job that anybody enqueues.
      local calls = key_prefix .. 'u:' .. ARGV[i] .. ':'
      local is_again = redis.call('MGET', calls .. string.match(request_id, '^[^~]*'))[1]
      before = before or {}
      if is_again then
        before[k] = true
      elseif is_tombstone then
        found[k], before[k] = false, calls .. string.match(known, '^[^~]*')
      end
    end
  end
end
if max_length ~= '' then
  local later = 0
  for i = first, #ARGV, stride do if ARGV[i + 3] ~= '' then later = later + 1 end end
  local full = later < #keys and waiting_in(stream) + #keys - later > tonumber(max_length) and -1
  full = full or (later > 0 and redis.call('ZCARD', key_prefix .. 'd') + later > tonumber(max_length) and -2)
  -- A batch fits whole or not at all. What was accepted before is not refused now.
  for k in ipairs(full and keys or {}) do
    if not found[k] then return full end
  end
end
if string.find(queue, '^', 1, true) then use_level(key_prefix, queue) end
local answers, accepted, new, met = {}, 0, {}, {}
for k, key in ipairs(keys) do
  local i = first + (k - 1) * stride
  local request_id = ARGV[i + 1]
  local flags = ARGV[i + 2]
  local reply = flags == '-i-' and '' or channel -- nobody is told of a result that is ignored
  local known = new[key] or found[k] and (string.match(found[k], '^.... %S+ %S+ (%S+)') or '')
  if not known then
    local wait = ARGV[i + 3]
    if before and before[k] then
      redis.call('SET', before[k], '', 'PX', 60000)
      redis.call('DEL', key_prefix .. 'e:' .. ARGV[i], key_prefix .. 's:' .. ARGV[i], key_prefix .. 'sp:' .. ARGV[i])
    end
    if wait == '' then
      local entry = redis.call('XADD', stream, '*', 'i', ARGV[i], 'm', ARGV[i + 4])
      redis.call('SET', key, 'L' .. flags .. ' ' .. entry .. ' ' .. queue .. ' ' .. request_id .. ' ' .. reply)
    else
      delay(key, 'D', 'D' .. flags, queue, request_id, ' ' .. reply, ARGV[i], { 'm', ARGV[i + 4] }, wait, key_prefix .. 'm:', key_prefix .. 'd', key_prefix .. 'wake')
    end
    new[key] = request_id
    known = request_id
  end
  local answer = 0
  if known == request_id or same_call(known, request_id) or (before and before[k] == true) then
    answer = 1
  else
    -- Of a call with a key, what stands before the point is the same for equal calls.
    local call = string.match(request_id, '^%x+%.')
    if call and call == string.match(known, '^%x+%.') then
      answer = new[key] and 1 or met[key] or status_of(key, found[k], reply)
      met[key] = answer
    end
  end
  answers[k] = answer
  if answer == 1 then accepted = accepted + 1 end
end
if accepted == #keys then return accepted end
return answers
