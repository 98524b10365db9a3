"""What a child that somebody forks from this process must not share with it: signals, sockets and pipes.

A fork copies the signal handlers and the descriptors of its parent, and a job's body may fork at any moment,
as `multiprocessing` does. Without this module such a child

- writes each signal that it gets into the pipe by which the parent's event loop learns of its own signals: a
  SIGTERM for the child (`Process.terminate()`) stops the worker;
- goes on after that SIGTERM, for the handler of an event loop does nothing by itself;
- holds our connections open after this process has closed them, or has died.

Only what forks through Python (`os.fork`) calls the hooks here. A fork in C has copies of everything, so
nothing may rely on the end of a connection alone to learn of the end of a process.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["close_in_children", "guard_signals", "reset_in_children"]

_BLOCKED: Final = (signal.SIGINT, signal.SIGTERM)

_is_guarded = False
_ours: Final[list[Any]] = []
_descriptors: Final[weakref.WeakKeyDictionary[Any, list[tuple[int, int, int]]]] = weakref.WeakKeyDictionary()
_masks: Final[dict[int, Any]] = {}
"""The signals that each thread which forks had blocked before, by the thread."""


def guard_signals() -> None:
    """From now on children get the default handlers in place of those of event loops, and no signal of a
    child reaches this process.

    Only processes that run jobs call this: in others, children are none of our business.
    """
    global _is_guarded  # noqa: PLW0603  of the process
    _is_guarded = True


def reset_in_children(handler: Callable[..., Any]) -> None:
    """Children get the default in place of this signal handler, too, which is for this process alone."""
    if handler not in _ours:
        _ours.append(handler)


def close_in_children(holder: object, *descriptors: int) -> None:
    """Children close these sockets or pipes, for as long as their holder lives.

    Args:
        holder: what closes them here.
        descriptors: their numbers. One that stands for another file by the time of a fork is left alone.
    """
    statuses = [(number, os.fstat(number)) for number in descriptors]
    _descriptors[holder] = [(number, status.st_dev, status.st_ino) for number, status in statuses]


def _before() -> None:
    # A signal may come before the child runs its first line, when it still has the parent's handlers.
    if _is_guarded:
        _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)


def _after_in_parent() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_in_child() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    _masks.clear()  # of threads that are not here
    if _is_guarded:
        signal.set_wakeup_fd(-1)
        _reset_handlers()
    _let_go_of_descriptors()
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _reset_handlers() -> None:
    for number in signal.valid_signals():
        if _is_of_parent(signal.getsignal(number)):
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
    # uvloop has a handler in C, of which Python knows nothing: it writes into a pipe of the parent's.
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _is_of_parent(handler: Any) -> bool:
    """Whether it is a handler of ours, or one of an event loop that does not run in the child."""
    if handler in _ours:
        return True
    function = handler.func if isinstance(handler, functools.partial) else handler
    if isinstance(getattr(function, "__self__", None), (asyncio.AbstractEventLoop, asyncio.Runner)):
        return True
    return str(getattr(function, "__module__", "")).startswith("asyncio.")


def _let_go_of_descriptors() -> None:
    """Puts the null device in their places. A number that were free would be given to the next file, which
    the finalizer of the copied object would close. And nothing is shut down, for the parent goes on.
    """
    if not _descriptors:
        return
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor, device, inode in [each for held in _descriptors.values() for each in held]:
        try:
            status = os.fstat(descriptor)
        except OSError:
            continue  # closed, and its holder has not been collected yet
        if (status.st_dev, status.st_ino) == (device, inode):
            os.dup2(null, descriptor, inheritable=False)
    os.close(null)
    _descriptors.clear()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
