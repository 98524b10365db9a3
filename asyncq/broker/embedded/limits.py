"""Limits: how long the embedded server, and a question to it, may take. Tests shorten them."""

DEADLINE = 10.0
"""Seconds that a server has for starting, and for leaving."""

ANSWER_TIMEOUT = 1.0
"""Seconds for one question. The answer takes 0.2 ms unless the server hangs."""
