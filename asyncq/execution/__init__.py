"""Runs the body of a task: on a loop, in a thread, or in the caller's own thread.

Nothing here knows Redis or a worker: the worker and `results.eager` both call `runner.Runner`.
"""
