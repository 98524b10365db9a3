"""Tasks and their options, and calls of them as data: signatures, chains and groups.

`task` is a function and the ways to send its calls, `options` declares each option once, and `job_builder`
makes a job of a call.

A `Signature` is one call, a `Chain` has steps one after the other, a `Group` has steps side by side. A group
with a step after it is what Celery calls a chord: the step waits for the whole group and gets the list of its
values. `planning` turns each of them into jobs that wait for each other. `submit` enqueues many at once.
"""
