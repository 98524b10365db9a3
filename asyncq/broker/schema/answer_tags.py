"""The first element of the answer of a script that answers in several ways: it says what follows. Scripts
write `ANSWER.GAP` and so on, see `script_constants`.
"""

from __future__ import annotations

UNKNOWN = b"unknown"
ENDED = b"ended"
ENDS = b"ends"
"""Of a script that has ended jobs its caller does not know of: then the usual answer, and these jobs."""
REFUSED = b"refused"

# state
DELAYED = b"delayed"
RETRYING = b"retrying"
QUEUED = b"queued"
RUNNING = b"running"

# message
FOUND = b"found"

# read
MORE = b"more"

# append_items, reader_position
APPENDED = b"appended"
GAP = b"gap"
POSITION = b"position"

# check_in
SILENT = b"silent"
DEAD = b"dead"

# take
ALIVE = b"alive"
TAKEN_OVER = b"taken over"

# submit
ACCEPTED = b"accepted"
IDS_TAKEN = b"ids taken"
QUEUE_FULL = b"queue full"
TOO_MANY_DELAYED = b"too many delayed"

# put_schedule; also ACCEPTED and REFUSED
LEFT_OUT = b"left out"
EARLY = b"early"
