"""The smallest asyncq app: one task that does nothing."""

from asyncq import AsyncQ

app = AsyncQ()


@app.task
async def noop() -> None:
    """Do nothing."""
