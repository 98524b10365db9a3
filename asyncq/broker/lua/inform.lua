-- Tells jobs that wait here how jobs of another shard ended, as the outbox of that one brings it. Again is once.
-- ARGV: space push_limit (child edge parent how words)*
-- RETURNS: how many there were
-- FLAGS: allow-oom
-- USES: record workflow
local ended = {}
for i = first, #ARGV, stride do
  local place, call = string.match(ARGV[i + 1], '^(%S+) (%S+)$')
  ended[#ended + 1] = inherit(ARGV[i], place, call, ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], tonumber(push_limit), true)
end
settle(ended, tonumber(push_limit))
return (#ARGV - first + 1) / stride
