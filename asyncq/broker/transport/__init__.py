"""How bytes get to the server and back: the URL, the connection, the pipe, reconnection, the loader of the
scripts, and the server's errors. Knows nothing of jobs.
"""
