-- Which entry of another shard's outbox was the last that this shard was told. They come in order, so there was none behind it.

-- Whether an entry of a shard's outbox is behind the last one.
local function is_news(from, entry)
  local ms, number = string.match(redis.call('HMGET', key_prefix .. 'in', from)[1] or '', '^(%d+)-(%d+)$')
  if not ms then return true end
  local its_ms, its_number = string.match(entry, '^(%d+)-(%d+)$')
  if its_ms ~= ms then return tonumber(its_ms) > tonumber(ms) end
  return tonumber(its_number) > tonumber(number)
end

local function heard(from, entry)
  redis.call('HSET', key_prefix .. 'in', from, entry)
end
