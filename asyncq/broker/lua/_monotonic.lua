-- A clock that is never set back, for the limits of tasks: the server's, and what that was set back by so far (ms).

-- What the server's clock was set back by since somebody was told the monotonic time, who now expects more to have passed (ms): 0 in most cases.
-- Who expects counts from when it was told until when it asks, by a clock of its own that nobody sets, so it never expects too much.
local function step_back(offset, now, expected)
  local behind = (tonumber(expected) or 0) - now - offset
  return behind > 100 and math.ceil(behind) or 0 -- clocks run a little slower or faster while they are corrected
end

-- Jobs that a limit has put aside were given moments by the monotonic clock, and are kept by the server's: they come sooner by as much as that
-- was set back. Others wait for a time by the server's clock, as they were promised.
local function bring_forward(key_prefix, step)
  local delayed, from = key_prefix .. 'd', 0
  repeat
    -- Who comes sooner moves to a place before those that were looked at, so the places behind stay.
    local some = redis.call('ZRANGE', delayed, from, from + 499, 'WITHSCORES')
    local keys = {}
    for i = 1, #some, 2 do keys[#keys + 1] = key_prefix .. 'r:' .. some[i] end
    for k, record in ipairs(#keys > 0 and redis.call('MGET', unpack(keys)) or {}) do
      if record and string.sub(record, 1, 1) == 'P' then redis.call('ZADD', delayed, some[2 * k] - step, some[2 * k - 1]) end
    end
    from = from + 500
  until #some < 1000
end

-- The monotonic time, in ms.
local function monotonic_ms(key_prefix, now, expected)
  local key = key_prefix .. 't'
  local offset = tonumber(redis.call('MGET', key)[1]) or 0
  local step = step_back(offset, now, expected)
  if step > 0 then
    offset = offset + step
    redis.call('SET', key, string.format('%.0f', offset))
    bring_forward(key_prefix, step)
  end
  return now + offset
end
