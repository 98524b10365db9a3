-- Where the readers of a stream are: the number of the last item that the furthest of them took, when that one read last and when any
-- did (ms), and the number that the generator waits for (0 if it does not).
local function parse_position(kept)
  local number, at, read, awaited = string.match(kept or '', '^(%S+) (%S+) (%S+) (%S+)$')
  return tonumber(number) or -1, tonumber(at) or 0, tonumber(read) or 0, tonumber(awaited) or 0
end
