"""The app of the trials' workers. It stands in a module, as that of `asyncq worker MODULE:APP` does, so jobs
on their last try run in child processes, which import it again. Nobody else imports it.
"""

from __future__ import annotations

import sys

from asyncq import AsyncQ
from chaos.jobs import OLD, register

app = AsyncQ()
register(app, is_old=sys.argv[1:] == [OLD])
