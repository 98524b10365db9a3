"""The broker: the only package that knows Redis. What talks to the server runs on the loop of a session, all
but the heartbeat, which has a thread and a connection of its own.
"""
