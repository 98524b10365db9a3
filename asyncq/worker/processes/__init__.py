"""The child processes that run jobs for a worker: the worker's end, the child's end, the frames in between.

The worker's end runs on the worker's loop. A child shares no memory with it.
"""
