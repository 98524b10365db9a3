"""The smallest asyncq app: one task that does nothing. It must work with older versions, too."""

from asyncq import AsyncQ

app = AsyncQ()


@app.task
async def noop() -> None:
    """Does nothing."""
