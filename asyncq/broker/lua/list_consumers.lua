-- Lists the consumers of streams that have no heartbeat. It takes time for each consumer of each stream, so a call is for a few streams.
-- Caller: a worker that watches more streams than it may list when it checks in.
-- Sent twice: only reads.
-- KEYS: beats beat_observations (stream)*
-- ARGV: group
-- RETURNS: {why a stream could not be read, {for each stream {consumer without a beat, 1 if it was taken for dead not long ago, else 0}...}}
-- FLAGS: no-writes
-- USES: consumers
local absent, problem = all_without_beat(beats, beat_observations, KEYS, 3, group)
return { problem or '', absent }
