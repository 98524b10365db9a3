"""How much of a failure travels, so that it always stays below `max_payload`."""

from __future__ import annotations

from typing import Final

MAX_MESSAGE: Final = 8 * 1024
MAX_TRACEBACK: Final = 32 * 1024
MAX_ARGS: Final = 32 * 1024
MAX_ATTRIBUTES: Final = 32 * 1024
"""Bytes of the attributes of one exception. Those that do not fit are left out, one by one."""
MAX_NOTES: Final = 32
MAX_EXCEPTIONS: Final = 100
"""Exceptions of one failure, counting causes, contexts and members of groups."""
MAX_LINKS: Final = 40
"""How deep causes, contexts and groups may nest."""
MAX_TOTAL: Final = 256 * 1024
"""Bytes of text, arguments and attributes of one failure."""
MAX_SHORT: Final = 7 * 1024
"""Bytes of a failure in its short form, which each job gets that waited for the one that failed."""
MAX_NAME: Final = 256
MAX_BASES: Final = 16
"""How many base classes of an exception are named."""
MAX_LEFT_OUT: Final = 32
"""How many attributes that were left out are named."""
