"""The app of the trials' worker processes. Only `chaos.worker` and its child processes import this module.

The app is in a module of its own, like the app of `asyncq worker MODULE:APP`. So a job on its last try can
run in a child process, which imports this module again.
"""

from __future__ import annotations

import sys

from asyncq import AsyncQ
from chaos.jobs import OLD, register

app = AsyncQ()
register(app, is_old=sys.argv[1:] == [OLD])
