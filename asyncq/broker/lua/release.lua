-- Hands claimed jobs back without counting a crash. Each gets a new entry, so that the old claim is void: in the returned queue or in the
-- executor queue that is named. A signalled job ends instead.
-- Caller: a worker that stops, that has no free slot, or that has no free thread or process for the jobs.
-- Sent twice: the record does not name the old entry any more, so the call is refused.
-- KEYS: stream target
-- ARGV: key_prefix group consumer push_limit ttl signals_prefix revoked_outcome target_name (entry id)*
-- RETURNS: for each: 1 handed back, 2 ended by a signal, 0 refused; fewer than asked for if they have enough bytes | {ends, the same, ended jobs}
-- FLAGS: allow-oom
-- USES: record workflow
local answers, bytes, is_target_known = {}, 0, target == stream
for i = first, #ARGV, stride do
  if bytes >= MAX_MOVED_BYTES then break end
  local entry, id = ARGV[i], ARGV[i + 1]
  local answer = 0
  local flags, queue, request_id, channels = check_claim(key_prefix .. KEY.RECORDS .. id, stream, group, consumer, entry, id)
  local content = flags and redis.call('XRANGE', stream, entry, entry)[1]
  if content then
    bytes = bytes + count_bytes(content[2])
    if is_signalled(flags) then
      clear_signal(signals_prefix .. consumer, id)
      end_job(id, flags, entry, consumer, request_id, channels, STATE.REVOKED, revoked_outcome, ttl, push_limit)
      report_end(id, STATE.REVOKED, queue, message_in(content[2]), revoked_outcome)
      answer = 2
    else
      if not is_target_known then
        use_level(key_prefix, target_name)
        is_target_known = true
      end
      local new_entry = redis.call('XADD', target, '*', unpack(content[2]))
      redis.call('SET', key_prefix .. KEY.RECORDS .. id, flags .. ' ' .. new_entry .. ' ' .. target_name .. ' ' .. request_id .. channels)
      answer = 1
    end
    redis.call('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
  end
  answers[#answers + 1] = answer
end
return with_ends(answers)
