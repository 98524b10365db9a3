-- Checks a worker session in: it says what it is, and learns in one call all that it must know and that no message tells it for certain. These
-- are the other sessions that are dead, its streams, the pauses of its queues, and whether another process has left something in the outbox.
-- The cost does not depend on the number of workers, but for the few streams that are `listed`: each stream has one watcher, for as long as the
-- watcher checks in in time, and the watcher stores a note for the others. To list a stream takes time for each of its consumers; if all n
-- workers did, that would be n squared.
-- Caller: each worker, three times a lease, in each shard.
-- Sent twice: makes another observation, with a higher number, and writes the same.
-- KEYS: beats beat_observations observations ages announced outbox (note or pause)*
-- ARGV: group session_id status status_ttl stale_since taken_since keep_ms own_ages queues levels watchers watched watch_ttl (listed)*
-- RETURNS: {number of this observation, what an observer stored of the ages of its observations, length of the outbox, why a part of it failed, {for each of the first `watched` keys its note, `<watcher> <number>`: of a last-attempt queue how many entries nobody holds, of a queue how many levels of priority it has; then for each other key since when the queue is paused}, {for each stream `listed` {consumer without a beat, 1 if it was taken for dead not long ago, else 0}...}, {silent, session id that has not beaten since the observation `stale_since`, count of its beats} | {dead, session id that was taken for dead since the observation `taken_since`}...}
-- FLAGS: allow-oom
-- USES: observations record status consumers
local problem = ''

-- What somebody has damaged keeps no worker from all else: it counts as nothing, and the caller is told why.
local function tried(answer)
  if type(answer) ~= 'table' or not answer.err then return answer end
  problem = answer.err
end

if status ~= '' then tried(store_status(beats, announced, session_id, status, status_ttl)) end
-- One that cannot be read is for the forwarder, which says so.
local waiting = tried(redis.pcall('XLEN', outbox)) or 1

local values = {}
for from = 7, #KEYS, 1000 do
  for _, value in ipairs(redis.call('MGET', unpack(KEYS, from, math.min(from + 999, #KEYS)))) do values[#values + 1] = value end
end
for k = 1, tonumber(watched) do
  local note = values[k]
  if not note or string.sub(note, 1, #session_id + 1) == session_id .. ' ' then
    local name, number = string.sub(KEYS[6 + k], #watchers + 1), 0
    if string.sub(name, -1) == '!' then
      number = tried(redis.pcall('XLEN', queues .. name)) or 0
      if number > 0 then
        local pending = tried(redis.pcall('XPENDING', queues .. name, group))
        number = pending and number - pending[1] or 0
      end
    elseif not string.find(name, '^', 1, true) then
      number = #(tried(redis.pcall('SMEMBERS', levels .. name)) or {})
    end
    values[k] = session_id .. ' ' .. number
    redis.call('SET', KEYS[6 + k], values[k], 'PX', watch_ttl)
  end
end

local absent, err = all_without_beat(beats, beat_observations, ARGV, first, group)
problem = err or problem

local observation = next_observation(observations, keep_ms)
local answer = { observation, redis.call('MGET', ages)[1] or '', waiting, problem, values, absent }
if own_ages ~= '' then redis.call('SET', ages, string.format('%.0f', observation) .. ' ' .. own_ages, 'PX', keep_ms) end
-- Each beat writes to both keys. If somebody has damaged one of them, a session without the number of an observation gets this number: else
-- nobody would ever notice that it has stopped.
if redis.call('HLEN', beats) ~= redis.call('ZCOUNT', beat_observations, 1, observation) then
  local all = redis.call('HGETALL', beats)
  for i = 1, #all, 2 do
    local name = all[i]
    local number = tonumber(redis.call('ZSCORE', beat_observations, name))
    if not number or number < 1 or number > observation then redis.call('ZADD', beat_observations, observation, name) end
  end
end
local sessions = redis.call('ZRANGEBYSCORE', beat_observations, -observation, '(' .. stale_since, 'WITHSCORES')
for i = 1, #sessions, 2 do
  local name, number = sessions[i], tonumber(sessions[i + 1])
  if number > 0 then
    local count = redis.call('HGET', beats, name)
    answer[#answer + 1] = { ANSWER.SILENT, name, count }
    -- Without a beat, which somebody has deleted, it is as dead as a session that was taken.
    if not count then redis.call('ZADD', beat_observations, -observation, name) end
  elseif -number >= tonumber(taken_since) then
    answer[#answer + 1] = { ANSWER.DEAD, name }
  elseif observation + number > tonumber(keep_ms) then
    redis.call('ZREM', beat_observations, name)
  end
end
return answer
