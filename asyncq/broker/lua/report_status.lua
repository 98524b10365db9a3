-- Stores what a worker session says of itself, for listings of workers: with what it announces, so it is deleted with that.
-- Caller: a worker, when it begins and when an operator has changed something. Else it says this when it checks in.
-- Sent twice: writes the same status, a little later.
-- KEYS: beats announced
-- ARGV: session_id status ttl
-- RETURNS: 1 stored, 0 the worker session was taken for dead
-- FLAGS: allow-oom
-- USES: record status
return store_status(beats, announced, session_id, status, ttl)
