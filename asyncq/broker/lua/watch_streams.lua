-- Watches streams on behalf of all workers. To check a stream takes time for each of its consumers; if all n workers checked all streams,
-- that would be n squared. So each stream has one watcher, for as long as the watcher asks in time, and the watcher stores a note for the
-- others.
-- Caller: each worker, three times a lease, for streams that have no watcher or that it watches.
-- Sent twice: writes the same notes.
-- KEYS: (stream)*
-- ARGV: group levels watchers session_id watch_ttl
-- RETURNS: for each stream its note, `<watcher> <number>`: of a last-attempt queue how many entries nobody holds, of a queue how many levels of priority it has
-- FLAGS: allow-oom
local keys, notes = {}, {}
for k, stream in ipairs(KEYS) do keys[k] = watchers .. string.match(stream, '[^:]*$') end
for k, note in ipairs(redis.call('MGET', unpack(keys))) do
  if not note or string.sub(note, 1, #session_id + 1) == session_id .. ' ' then
    local stream, name, number = KEYS[k], string.match(KEYS[k], '[^:]*$'), 0
    if string.sub(name, -1) == '!' then
      number = redis.call('XLEN', stream)
      if number > 0 then number = number - redis.call('XPENDING', stream, group)[1] end
    elseif not string.find(name, '^', 1, true) then
      number = #redis.call('SMEMBERS', levels .. name)
    end
    note = session_id .. ' ' .. number
    redis.call('SET', keys[k], note, 'PX', watch_ttl)
  end
  notes[k] = note
end
return notes
