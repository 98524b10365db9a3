-- Accepts jobs into one queue, or for a later time. A job already there with the same nonce is this very call, sent again: accepted,
-- once.
-- KEYS: stream delayed
-- ARGV: records queue channel max_length messages wake (id nonce flags wait message)*
-- RETURNS: the number of jobs if all were accepted, else for each: 1 accepted, 0 another job has this id; -1 if the queue is full
-- USES: record
local keys = {}
for i = first, #ARGV, stride do keys[#keys + 1] = records .. ARGV[i] end
local found = redis.call('MGET', unpack(keys))
if max_length ~= '' and redis.call('XLEN', stream) + #keys > tonumber(max_length) then
  -- A batch fits whole or not at all. What was accepted before is not refused now.
  for k in ipairs(keys) do
    if not found[k] then return -1 end
  end
end
local answers, accepted, new = {}, 0, {}
for k, key in ipairs(keys) do
  local i = first + (k - 1) * stride
  local nonce = ARGV[i + 1]
  local known = new[key]
  if not known and found[k] then known = string.match(found[k], '^.... %S+ %S+ (%S+)') or '' end
  if not known then
    local flags, wait = ARGV[i + 2], ARGV[i + 3]
    local reply = flags == '-i-' and '' or channel -- nobody is told of a result that is ignored
    if wait == '' then
      local entry = redis.call('XADD', stream, '*', 'i', ARGV[i], 'm', ARGV[i + 4])
      redis.call('SET', key, 'L' .. flags .. ' ' .. entry .. ' ' .. queue .. ' ' .. nonce .. ' ' .. reply)
    else
      -- The wait is relative: due times are by the server's clock alone.
      local due = now_ms() + tonumber(wait)
      delay(key, 'D', 'D' .. flags, queue, nonce, ' ' .. reply, ARGV[i], { 'm', ARGV[i + 4] }, due, messages, delayed, wake)
    end
    new[key] = nonce
    known = nonce
  end
  if known == nonce then
    answers[k] = 1
    accepted = accepted + 1
  else
    answers[k] = 0
  end
end
if accepted == #keys then return accepted end
return answers
