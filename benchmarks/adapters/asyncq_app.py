"""The smallest asyncq app: the tasks of `bodies.py`, and one that does nothing. It must work with older
versions, too.
"""

import bodies

from asyncq import AsyncQ

app = AsyncQ()
TASKS = {name: app.task(getattr(bodies, name)) for name in bodies.NAMES}


@app.task
async def noop() -> None:
    """Does nothing."""
