"""How bytes get to the server and back: URL, connection, pipe, reconnection, scripts, and the server's
errors.
"""
