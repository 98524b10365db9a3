"""Tasks and their options, and calls of them as data: signatures, chains and groups.

A `Signature` is one call, a `Chain` a line of steps, a `Group` steps side by side. A group in a line is what
Celery calls a chord: the next step waits for all of it and gets the list of its values. `planning` turns any
of them into jobs that wait for each other.
"""
