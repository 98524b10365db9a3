"""Keeps the database connections of Django usable in a worker, as Django does for requests.

Django has a connection for each thread. A worker reuses its threads, so a connection may have been closed by
the database since the last job. What a request does at its beginning and its end, a job does, too:

- all that a job calls on a thread (a plain function, with its dependencies) is surrounded by
  `close_old_connections`, on that thread;
- the ORM calls of a coroutine run on a thread that Django chooses. Each job gets one of its own, as each
  request under ASGI does, and its connections are closed with it. Otherwise all jobs would share one thread,
  and would wait for each other.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.db import close_old_connections, connections, reset_queries

from asyncq.app import add_to_every_app
from asyncq.execution.executors import surround_threads
from asyncq.middleware.middleware import Middleware

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from asyncq.context import Context

log: logging.Logger = logging.getLogger(__name__)

_is_installed = False


def install() -> None:
    """Does so for all jobs that this process runs. A second call does nothing."""
    global _is_installed  # noqa: PLW0603  connections belong to the process
    if not _is_installed:
        _is_installed = True
        surround_threads(_with_connections)
        add_to_every_app(OwnThread())


@contextmanager
def _with_connections() -> Iterator[None]:
    _tend()
    try:
        yield
    finally:
        _tend()


def _tend() -> None:
    """Closes the connections of this thread that are too old or unusable; not those within a transaction."""
    try:
        reset_queries()
        close_old_connections()
    except Exception as error:  # noqa: BLE001  the job must not fail by this
        log.warning("the old database connections of a thread could not be closed: %r", error)


class OwnThread(Middleware):
    """Gives each attempt a thread of its own for what a coroutine runs with `sync_to_async`, as Django's ORM
    does. The thread starts with the first such call.
    """

    async def on_run(self, job: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
        """Runs the attempt, and closes the connections of that thread."""
        async with ThreadSensitiveContext() as thread:
            try:
                return await call_next(job)
            finally:
                if thread in SyncToAsync.context_to_thread_executor:  # else nothing has needed the thread
                    await sync_to_async(_close_all, thread_sensitive=True)()


def _close_all() -> None:
    try:
        connections.close_all()
    except Exception as error:  # noqa: BLE001  as above
        log.warning("the database connections of a job could not be closed: %r", error)
