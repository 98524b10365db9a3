"""`app.control`: what an operator does with a running system. So far: the dead letters.

Listings of queues and workers, pausing and purging belong here, too.
"""
