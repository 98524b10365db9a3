-- Reads the entries that are pending for this consumer and that it did not know when it asked, for the reply that delivered them was lost.
-- Sent on the connection that reads, between two reads. XREADGROUP from 0 would find them, too, but it resets idle times and adds to the
-- delivery counts.
-- Caller: a worker, after an error of its reading connection and every two leases.
-- Sent twice: only reads.
-- KEYS: stream
-- ARGV: group consumer max_entries (known)*
-- RETURNS: {{entry, {field, value...}}...}
-- FLAGS: no-writes
local known = {}
for i = first, #ARGV do known[ARGV[i]] = true end
local unknown = {}
for _, item in ipairs(redis.call('XPENDING', stream, group, '-', '+', max_entries, consumer)) do
  if not known[item[1]] then
    local content = redis.call('XRANGE', stream, item[1], item[1])[1]
    unknown[#unknown + 1] = content or { item[1], false }
  end
end
return unknown
