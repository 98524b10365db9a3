-- What is pending for this consumer, with the messages of those entries that it did not know of when it asked (the reply that brought
-- them was lost). Asked on the connection that reads, between two reads. XREADGROUP from 0 would do it too, but it sets idle times back
-- and counts deliveries up.
-- KEYS: stream
-- ARGV: group consumer max_entries (known)*
-- RETURNS: {{entry, {field, value...}}...}
-- FLAGS: no-writes
local held = {}
for i = first, #ARGV do held[ARGV[i]] = true end
local ghosts = {}
for _, item in ipairs(redis.call('XPENDING', stream, group, '-', '+', max_entries, consumer)) do
  if not held[item[1]] then
    local content = redis.call('XRANGE', stream, item[1], item[1])[1]
    ghosts[#ghosts + 1] = content or { item[1], false }
  end
end
return ghosts
