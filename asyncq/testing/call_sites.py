"""Finds the line of the user's code that made something: a job, an asyncio task, an open app.

A line is found on the stack of the thread that runs. asyncq itself starts tasks, and so do asyncio and anyio,
and their stacks begin in the event loop. Therefore `TaskSites` notes for each task who created it, and a
line that is not on the stack is that of the task that runs.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import weakref
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

import asyncq

if TYPE_CHECKING:
    from collections.abc import Callable

_OURS = tuple(f"{Path(module.__file__ or '').parent}{os.sep}" for module in (asyncq, asyncio, anyio))
"""The folders whose frames are not the user's."""
_HERE = f"{Path.cwd()}{os.sep}"
_LIBRARY = str(Path(asyncio.__file__).parent.parent)
_INNER = (f"{_LIBRARY}/threading.py", f"{_LIBRARY}/contextlib.py", f"{_LIBRARY}/concurrent/")
_TURN = frozenset({"_run_once", "run_forever", "run_until_complete", "_run"})
"""The functions of asyncio below which the stack says who runs the loop, and not who made a call."""

in_other_thread: ContextVar[str | None] = ContextVar("in_other_thread", default=None)
"""The line that made a blocking call, for the loop that serves it."""


def caller() -> str | None:
    """Returns the line of the user's code that makes the running call, as `path:line`; None if there is none
    on the stack.
    """
    frame = inspect.currentframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_OURS):
            if frame.f_code.co_name in _TURN and not file.startswith(_OURS[0]):
                return None
        elif not file.startswith(_INNER):
            return None if _is_loop(file) else f"{_shown(file)}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def _is_ours() -> bool:
    """Whether asyncq itself creates the task that is being created, or the event loop does."""
    here = inspect.currentframe()
    frame = None if here is None or here.f_back is None else here.f_back.f_back  # not this file's
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_OURS[0]):
            return True
        if not file.startswith((*_OURS, *_INNER)):
            return _is_loop(file)
        if frame.f_code.co_name in _TURN:
            return True
        frame = frame.f_back
    return True


def _is_loop(file: str) -> bool:
    """Whether a file is that of another event loop, such as uvloop's."""
    return file.startswith("uvloop/") or "/uvloop/" in file


def _shown(file: str) -> str:
    """Returns a path relative to the working directory at the start, if it is below."""
    return file.removeprefix(_HERE)


class TaskSites:
    """Notes where each asyncio task of a loop is created, while it is installed.

    It calls the task factory that the loop had before, so the tasks are the same.
    """

    def __init__(self) -> None:
        self._sites: weakref.WeakKeyDictionary[asyncio.Future[Any], str] = weakref.WeakKeyDictionary()
        self._of_user: weakref.WeakSet[asyncio.Future[Any]] = weakref.WeakSet()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before: Callable[..., Any] | None = None
        self._factory: Callable[..., Any] | None = None

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to note the tasks of a loop. Call it on that loop."""
        before = loop.get_task_factory()

        def create(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
            if before is None:
                task: Any = asyncio.Task(coroutine, loop=loop, **options)
            else:
                task = before(loop, coroutine, **options)
            site = self.here()
            if site is not None:
                self._sites[task] = site
            if not _is_ours():
                self._of_user.add(task)
            return task

        self._loop, self._before, self._factory = loop, before, create
        loop.set_task_factory(create)

    def uninstall(self) -> None:
        """Gives the loop its task factory back, unless somebody has set another one meanwhile."""
        if self._loop is not None and self._loop.get_task_factory() is self._factory:
            self._loop.set_task_factory(self._before)
        self._loop = None

    def here(self) -> str | None:
        """Returns the line of the user's code to which the running code goes back; None if it is unknown."""
        site = in_other_thread.get() or caller()
        if site is None:
            try:
                task = asyncio.current_task()
            except RuntimeError:  # no event loop runs on this thread
                return None
            site = None if task is None else self._sites.get(task)
        return site

    def of(self, task: asyncio.Task[Any]) -> str | None:
        """Returns the line that created a task, if it is known."""
        return self._sites.get(task)

    def is_of_user(self, task: asyncio.Task[Any]) -> bool:
        """Whether other code than asyncq has created a task while this was installed."""
        return task in self._of_user
