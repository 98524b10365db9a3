-- Which of some calls the user may not make. Nothing is called: the rights are looked up, and that needs none.
-- ARGV: (call)*
-- RETURNS: those that are refused; each call is a command with its arguments, a space between them
-- FLAGS: no-writes
local refused = {}
for i = first, #ARGV do
  local words = {}
  for word in string.gmatch(ARGV[i], '%S+') do words[#words + 1] = word end
  if not redis.acl_check_cmd(unpack(words)) then refused[#refused + 1] = ARGV[i] end
end
return refused
