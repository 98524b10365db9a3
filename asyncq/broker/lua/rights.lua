-- Checks which of some commands the user may not run. Runs none of them: the server looks up the rights, which needs no right.
-- Caller: an app when it opens, and a worker when it starts.
-- Sent twice: only reads.
-- ARGV: (call)*
-- RETURNS: the refused commands, each with its arguments, a space between them; those that the server does not know with a ? before them
-- FLAGS: no-writes
local refused = {}
for i = first, #ARGV do
  local words = {}
  for word in string.gmatch(ARGV[i], '%S+') do words[#words + 1] = word end
  local is_known, is_allowed = pcall(redis.acl_check_cmd, unpack(words))
  if not is_known then
    refused[#refused + 1] = '?' .. ARGV[i]
  elseif not is_allowed then
    refused[#refused + 1] = ARGV[i]
  end
end
return refused
