"""The smallest asyncq app: one task that does nothing. Older versions must know all that it uses."""

from asyncq import AsyncQ

app = AsyncQ()


@app.task
async def noop() -> None:
    """Do nothing."""
