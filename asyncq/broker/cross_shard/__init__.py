"""Jobs that concern several shards: what one shard has for others is forwarded, workflows are split by shard,
and cycles of waits are followed through all of them.
"""
