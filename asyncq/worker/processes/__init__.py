"""The child processes that run jobs for a worker, and the worker processes of a supervisor: the end of the
process that starts them, the child's end, the frames in between.

The end of the starting process runs on its loop. A child shares no memory with it.
"""
