"""The client's side of an open connection: sessions, scopes, and the guard against waits that never end.

`sessions` decides which session and which loop serve a call. `session` is one open session; its `submit`
accepts every job. `scoped_jobs` keeps the jobs of a scope, `deadlock` refuses waits that would never end, and
`application` has the protocols of the app and its tasks. Nothing here knows of handles: those are in
`results`, one layer above.
"""
