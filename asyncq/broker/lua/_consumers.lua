-- Which consumers of a stream have no heartbeat, for the watcher of the stream.

-- The consumers that were asked for in this call, for each whether it has a beat. A worker is a consumer of many streams.
local has_beat = {}

-- Asks for the beats of some consumers, a thousand at a time.
local function ask_for_beats(beats, names)
  for from = 1, #names, 1000 do
    local to = math.min(from + 999, #names)
    for k, count in ipairs(redis.call('HMGET', beats, unpack(names, from, to))) do has_beat[names[from + k - 1]] = count ~= false end
  end
end

-- Returns the consumers of a stream without a beat, for each 1 if it was taken for dead not long ago, else 0; and an error if the stream
-- could not be read. Then it has no consumers.
local function without_beat(beats, beat_observations, stream, group)
  local found, unknown = {}, {}
  local readers = redis.pcall('XINFO', 'CONSUMERS', stream, group)
  if readers.err then return found, readers.err end
  for _, reader in ipairs(readers) do
    if has_beat[reader[2]] == nil then unknown[#unknown + 1] = reader[2] end
  end
  ask_for_beats(beats, unknown)
  for _, reader in ipairs(readers) do
    local name = reader[2]
    if not has_beat[name] then
      local number = tonumber(redis.call('ZSCORE', beat_observations, name))
      found[#found + 1] = { name, number and number < 0 and 1 or 0 }
    end
  end
  return found
end

-- Returns the same of all streams in a list from a place on, for each stream one answer; and why one could not be read, or nil.
local function all_without_beat(beats, beat_observations, streams, from, group)
  local found, problem = {}, nil
  for k = from, #streams do
    local err
    found[#found + 1], err = without_beat(beats, beat_observations, streams[k], group)
    problem = err or problem
  end
  return found, problem
end
