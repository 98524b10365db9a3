"""The data in Redis: the names of the keys, how jobs are spread over the shards, and what their records say.
Talks to no server, and may be used on any thread.
"""
