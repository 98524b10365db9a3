"""What is in Redis: the names of the keys, how jobs are spread over the shards, and what their records
say.
"""
