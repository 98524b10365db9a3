-- Sets the virtual clock ahead, and shortens the lives of keys by as much. Keys that living workers renew by the real clock stay.
-- Caller: the harness of a test.
-- KEYS: clock
-- ARGV: ahead (ms) by (ms) (prefix of keys that stay)*
-- RETURNS: the number of keys that have expired
redis.call('SET', KEYS[1], ARGV[1])
local by, expired, cursor = tonumber(ARGV[2]), 0, '0'
local function stays(key)
  for i = 3, #ARGV do
    if string.sub(key, 1, #ARGV[i]) == ARGV[i] then return true end
  end
  return false
end
repeat
  local found = redis.call('SCAN', cursor, 'COUNT', 1000)
  cursor = found[1]
  for _, key in ipairs(found[2]) do
    local left = redis.call('PTTL', key)
    if left >= 0 and by > 0 and not stays(key) then
      if left <= by then
        expired = expired + redis.call('DEL', key)
      else
        redis.call('PEXPIRE', key, string.format('%.0f', left - by))
      end
    end
  end
until cursor == '0'
return expired
