"""The child processes that run jobs for a worker: both ends, and what they say to each other."""
