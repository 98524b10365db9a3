-- A monotonic clock for the limits of tasks: the server's clock, plus the sum of all steps by which it was set back so far (ms).

-- Returns by how much the server's clock was set back since the caller was told the monotonic time (ms): mostly 0. `expected` is what the
-- caller expects the monotonic time to be at least: it has counted by a clock of its own that nobody sets, from the answer to this call.
local function clock_step(offset, now, expected)
  local missing = (tonumber(expected) or 0) - now - offset
  return missing > 100 and math.ceil(missing) or 0 -- clocks run a little slower or faster while they are corrected
end

-- Makes the jobs that a limit has deferred due sooner by one step. Their start times are by the monotonic clock, but the delayed set is by
-- the server's clock. All other delayed jobs were promised a time by the server's clock, and keep it.
local function bring_forward(key_prefix, step)
  local delayed, index = key_prefix .. KEY.DELAYED, 0
  repeat
    -- A job that becomes due sooner moves in front of this batch, so the indexes behind the batch stay.
    local batch = redis.call('ZRANGE', delayed, index, index + 499, 'WITHSCORES')
    local keys = {}
    for i = 1, #batch, 2 do keys[#keys + 1] = key_prefix .. KEY.RECORDS .. batch[i] end
    for k, record in ipairs(#keys > 0 and redis.call('MGET', unpack(keys)) or {}) do
      if record and state_of(record) == STATE.DEFERRED then redis.call('ZADD', delayed, batch[2 * k] - step, batch[2 * k - 1]) end
    end
    index = index + 500
  until #batch < 1000
end

-- Returns the monotonic time, in ms.
local function monotonic_ms(key_prefix, now, expected)
  local key = key_prefix .. KEY.CLOCK_OFFSET
  local offset = tonumber(redis.call('MGET', key)[1]) or 0
  local step = clock_step(offset, now, expected)
  if step > 0 then
    offset = offset + step
    redis.call('SET', key, string.format('%.0f', offset))
    bring_forward(key_prefix, step)
  end
  return now + offset
end
