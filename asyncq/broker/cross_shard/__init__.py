"""What concerns several shards: the forwarder delivers the entries of outboxes, a workflow is split by shard,
and a wait cycle is found though its jobs lie in different shards.
"""
