"""The client's side of an open connection: sessions, scopes, and the guard against waits that never end.

`sessions` decides which session serves a call, `session` is one. `application` says what everything below the
app knows of it. Nothing here knows of handles: those are in `results`, one layer above.
"""
