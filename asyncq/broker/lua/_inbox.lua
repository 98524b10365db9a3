-- Which entries of the outboxes of other shards this shard has applied. Entries arrive in order, so one offset for each outbox is enough: the
-- last entry that was applied.

-- Returns whether an entry of another shard's outbox comes after the last one that was applied. An entry that is delivered again does not.
local function is_new_entry(from, entry)
  local stored_ms, stored_number = string.match(redis.call('HMGET', key_prefix .. KEY.INBOX, from)[1] or '', '^(%d+)-(%d+)$')
  if not stored_ms then return true end
  local entry_ms, entry_number = string.match(entry, '^(%d+)-(%d+)$')
  if entry_ms ~= stored_ms then return tonumber(entry_ms) > tonumber(stored_ms) end
  return tonumber(entry_number) > tonumber(stored_number)
end

-- Stores the last entry that was applied. To be called in the step that applies it.
local function store_offset(from, entry)
  redis.call('HSET', key_prefix .. KEY.INBOX, from, entry)
end
