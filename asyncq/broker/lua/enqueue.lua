-- Accepts jobs into one queue. A job already there with the same nonce is this very call, sent again: accepted, once.
-- KEYS: stream
-- ARGV: records queue channel (id nonce flags message)*
-- RETURNS: the number of jobs if all were accepted, else for each: 1 accepted, 0 another job has this id
local keys = {}
for i = first, #ARGV, stride do keys[#keys + 1] = records .. ARGV[i] end
local found = redis.call('MGET', unpack(keys))
local answers, accepted, new = {}, 0, {}
for k, key in ipairs(keys) do
  local i = first + (k - 1) * stride
  local nonce = ARGV[i + 1]
  local known = new[key]
  if not known and found[k] then known = string.match(found[k], '^.... %S+ %S+ (%S+)') or '' end
  if not known then
    local flags = ARGV[i + 2]
    local entry = redis.call('XADD', stream, '*', 'i', ARGV[i], 'm', ARGV[i + 3])
    local reply = flags == '-i-' and '' or channel -- nobody is told of a result that is ignored
    redis.call('SET', key, 'L' .. flags .. ' ' .. entry .. ' ' .. queue .. ' ' .. nonce .. ' ' .. reply)
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
