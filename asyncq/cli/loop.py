"""Runs a command's coroutine on an event loop, and ends the process even if tasks or threads still run.

`run` is called once per process, on the main thread. It waits at most 0.3 s for tasks and threads that
outlive the coroutine. If any are left, `invocation.command` calls `leave`, which flushes the output and exits
at once.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncq.cli import signals
from asyncq.cli.exits import CliError, Code

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

log: logging.Logger = logging.getLogger(__name__)

LOOPS = ("auto", "asyncio", "uvloop")
_END_TIMEOUT = 0.3
"""How many seconds tasks, and then threads, have to notice the end. Idle ones need some 100 us; a busy one
may never notice it."""
_MOST_NAMED = 10
_has_left_tasks = False


def factory(kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Returns the function that makes the event loop. `auto` is uvloop where it is installed, else asyncio.

    Raises:
        CliError: `uvloop` was asked for and is not installed, or there is no such kind.
    """
    if kind not in LOOPS:
        raise CliError(f"there is no event loop {kind!r}", f"write one of {', '.join(LOOPS)}", Code.USAGE)
    if kind != "asyncio":
        try:
            made: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
        except ImportError:
            if kind == "uvloop":
                raise CliError(
                    "uvloop is not installed here", 'pip install "asyncq[uvloop]"', Code.CONFIGURATION
                ) from None
        else:
            return made
    return asyncio.new_event_loop


def run(
    coroutine: Coroutine[Any, Any, int],
    *,
    kind: str = "auto",
    catch_terminate: bool = True,
    code_if_left: int | None = None,
) -> int:
    """Runs a coroutine to its end and returns its exit code.

    It does not wait for work that outlives the coroutine: the body of a plain task, a call in an executor, or
    a task that does not end when it is cancelled. See `all_ended` and `leave`.

    Args:
        coroutine: returns the exit code.
        kind: the kind of event loop, see `factory`.
        catch_terminate: True lets SIGTERM cancel the coroutine, so that it releases the embedded server. With
            False the coroutine handles the signal itself.
        code_if_left: the exit code if a task goes on (default: the coroutine's exit code).

    Raises:
        KeyboardInterrupt: Ctrl-C, after the coroutine was cancelled.
        Exception: whatever the coroutine raises.
    """
    try:
        make = factory(kind)
    except CliError:
        coroutine.close()
        raise
    executor = ThreadPoolExecutor(thread_name_prefix="asyncq-cli")
    runner = asyncio.Runner(loop_factory=make)
    loop = runner.get_loop()
    loop.set_default_executor(executor)
    signals.hand_over()
    try:
        code = runner.run(_guarded(coroutine) if catch_terminate else coroutine)
    finally:
        # Nothing is left that could handle errors of the tasks that are cancelled from here on.
        loop.set_exception_handler(_note)
        left = _tasks_left(loop)
        executor.shutdown(wait=False, cancel_futures=True)
        # `Runner.close` waits for tasks and for the executor's threads without a limit, so it is called only
        # if all have ended.
        if not left and all_ended():
            runner.close()
    return code if code_if_left is None or not left else code_if_left


def _tasks_left(loop: asyncio.AbstractEventLoop) -> bool:
    """Cancels the tasks that are left on the loop, and returns whether any of them goes on all the same."""
    global _has_left_tasks  # noqa: PLW0603  of the process, which is about to end
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=_END_TIMEOUT))
    left = [task for task in tasks if not task.done()]
    if left:
        names = ", ".join(_name(task) for task in left[:_MOST_NAMED])
        log.error("%d tasks did not end when they were cancelled, and are left behind: %s", len(left), names)
        _has_left_tasks = True
    return bool(left)


def _name(task: asyncio.Task[Any]) -> str:
    return str(getattr(task.get_coro(), "__qualname__", task.get_name()))


def _note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.debug("while the loop was closed: %s: %r", context.get("message"), context.get("exception"))


async def _guarded(coroutine: Coroutine[Any, Any, int]) -> int:
    """Turns SIGTERM into a cancellation of the coroutine, and that cancellation into its exit code."""
    task = asyncio.current_task()
    assert task is not None
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    with suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await coroutine
    except asyncio.CancelledError:
        if not terminated:
            raise
        return Code.TERMINATED


def all_ended() -> bool:
    """Gives other threads up to 0.3 s, and returns whether all tasks and non-daemon threads have ended."""
    if _has_left_tasks:
        return False
    deadline = time.monotonic() + _END_TIMEOUT
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                return False
    return True


def leave(code: int) -> None:
    """Ends the process at once, whatever threads still run. Flushes output and logs, and ends the children of
    `multiprocessing`, as the end of the interpreter does.
    """
    multiprocessing = sys.modules.get("multiprocessing")  # only the user's code may have imported it
    for child in [] if multiprocessing is None else multiprocessing.active_children():
        child.terminate()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a closed pipe: nobody reads it any more
            stream.flush()
    logging.shutdown()
    os._exit(code)
