"""The lifespan of an app: what each worker opens before its first job, and closes after its last one.

`Worker` enters it on its loop. Errors are raised as `AsyncQError`, so that the command line shows one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq import failures
from asyncq.errors import AsyncQError
from asyncq.execution.own_task import OwnTask

if TYPE_CHECKING:
    import asyncio
    import contextvars
    from collections.abc import Callable

    from asyncq.app import AsyncQ


class Lifespan:
    """The lifespan of an app in one worker.

    Args:
        app: the app. It may have none.
        context: the context variables of the lifespan.
        on_end: called if the lifespan ends although `leave` was not called.

    Attributes:
        state: what the lifespan has yielded; None without a lifespan.
    """

    def __init__(self, app: AsyncQ, context: contextvars.Context, on_end: Callable[[], object]) -> None:
        self.state: Any = None
        self._app = app
        self._context = context
        self._on_end = on_end
        self._task: OwnTask[Any] | None = None

    async def enter(self) -> None:
        """Enters the lifespan, if there is one. If the call is cancelled, `leave` must be called, too.

        Raises:
            AsyncQError: the lifespan has raised.
        """
        manager = self._app.worker_lifespan
        if manager is None:
            return
        self._task = OwnTask(lambda: manager(self._app), self._context, self._on_end)
        try:
            self.state = await self._task.entered()
        except Exception as error:
            raise _failed("when it was entered", error) from error

    async def leave(self, at_once: asyncio.Event) -> None:
        """Leaves the lifespan, if it was entered.

        Args:
            at_once: cancels the lifespan when it is set.

        Raises:
            AsyncQError: the lifespan has raised.
        """
        task, self._task, self.state = self._task, None, None
        if task is None:
            return
        try:
            await task.leave(at_once=at_once)
        except Exception as error:
            raise _failed("when it was left", error) from error


def _failed(when: str, error: Exception) -> AsyncQError:
    return AsyncQError(f"the lifespan of the app failed {when}: {failures.one_line(error)}")
