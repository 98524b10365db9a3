-- Returns how far the readers of a stream have read, in ms by the server's clock: the number of the last item that the furthest reader took,
-- when that reader read last, when any reader read last, and the number that the generator waits for (0 if it does not wait).
local function parse_position(kept)
  local number, at, read, awaited = string.match(kept or '', '^(%S+) (%S+) (%S+) (%S+)$')
  return tonumber(number) or -1, tonumber(at) or 0, tonumber(read) or 0, tonumber(awaited) or 0
end
