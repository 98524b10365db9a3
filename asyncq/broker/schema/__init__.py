"""The data in Redis: the names of the keys, how jobs are spread over the shards, and what their records say.
Pure functions and values, on any thread; only scripts write these data.
"""
