-- How jobs stand: the record of an ended one, the flags of a live one, false for one that is unknown. With a channel, a live job's
-- waiters are joined by it in the same step, so that no ending can fall between the look and the wait.
-- ARGV: records channel (id)*
-- RETURNS: for each: record | flags, and after a space when it expires if it does | false
-- FLAGS: allow-oom
-- USES: record
local keys = {}
for i = first, #ARGV do keys[#keys + 1] = records .. ARGV[i] end
local answers = redis.call('MGET', unpack(keys))
for k, record in ipairs(answers) do
  local state = record and string.sub(record, 1, 1)
  if state == 'T' then
    answers[k] = false
  elseif state and string.find('LDRW', state, 1, true) then
    local flags, entry, queue, nonce, channels = parse(record)
    -- Nobody will be told of a result that is ignored, so nobody joins.
    if channel ~= '' and string.sub(flags, 3, 3) ~= 'i' and not string.find(channels .. ' ', ' ' .. channel .. ' ', 1, true) then
      local _, count = string.gsub(channels, '%S+', '')
      if count < 64 then
        redis.call('APPEND', keys[k], ' ' .. channel)
      else
        -- Clients that died leave their channels behind. The oldest goes; if it still waits, its poll covers it.
        channels = string.gsub(channels, '^ %S+', '', 1) .. ' ' .. channel
        redis.call('SET', keys[k], flags .. ' ' .. entry .. ' ' .. queue .. ' ' .. nonce .. channels)
      end
    end
    local expires = string.match(nonce, '~(%d+)$')
    answers[k] = expires and flags .. ' ' .. expires or flags
  end
end
return answers
