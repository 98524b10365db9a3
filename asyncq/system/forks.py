"""Takes from a child that is forked from this process what it must not share: signals, sockets and pipes.

The hooks at the end run in the thread that forks. A fork copies the signal handlers and the descriptors of
its parent, and the body of a job may fork at any moment, as `multiprocessing` does. Without this module,
a child

- writes each signal that it gets into the pipe by which the parent's event loop learns of its own signals: a
  SIGTERM for the child (`Process.terminate()`) stops the worker;
- goes on after that SIGTERM, because the handler of an event loop does nothing by itself;
- holds our connections open after this process has closed them or has died.

Only a fork through Python (`os.fork`) calls the hooks. A fork in C has copies of everything. So nothing may
rely on the end of a connection alone to learn of the end of a process.
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
"""By thread, the signals that a thread which forks had blocked before."""


def guard_signals() -> None:
    """Makes children get the default handlers instead of those of event loops, from now on.

    Then no signal for a child reaches this process. Only processes that run jobs call this: in other
    processes, children are none of our business.
    """
    global _is_guarded  # noqa: PLW0603  a setting of the process
    _is_guarded = True


def reset_in_children(handler: Callable[..., Any]) -> None:
    """Makes children get the default instead of this signal handler, which is for this process alone."""
    if handler not in _ours:
        _ours.append(handler)


def close_in_children(holder: object, *descriptors: int) -> None:
    """Makes children close these sockets or pipes, for as long as their holder lives.

    Args:
        holder: the object that closes them in this process.
        descriptors: their numbers. A number that stands for another file at the time of a fork is left alone.
    """
    statuses = [(number, os.fstat(number)) for number in descriptors]
    _descriptors[holder] = [(number, status.st_dev, status.st_ino) for number, status in statuses]


def _before() -> None:
    # A signal may come before the first line of the child runs, while the child has the parent's handlers.
    if _is_guarded:
        _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)


def _after_in_parent() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_in_child() -> None:
    """Restores default handlers and releases descriptors, in the thread of the child that forked."""
    mask = _masks.pop(threading.get_ident(), None)
    _masks.clear()  # the other threads do not exist in the child
    if _is_guarded:
        signal.set_wakeup_fd(-1)
        _reset_handlers()
    _let_go_of_descriptors()
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _reset_handlers() -> None:
    """Replaces the handlers of the parent's event loops, and ours, by the default ones."""
    for number in signal.valid_signals():
        if _is_of_parent(signal.getsignal(number)):
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
    # uvloop has a handler in C that Python does not see: it writes into a pipe of the parent.
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _is_of_parent(handler: Any) -> bool:
    """Whether it is a handler of ours, or of an event loop that does not run in the child."""
    if handler in _ours:
        return True
    function = handler.func if isinstance(handler, functools.partial) else handler
    if isinstance(getattr(function, "__self__", None), (asyncio.AbstractEventLoop, asyncio.Runner)):
        return True
    return str(getattr(function, "__module__", "")).startswith("asyncio.")


def _let_go_of_descriptors() -> None:
    """Replaces the descriptors by the null device, and shuts nothing down, because the parent goes on.

    A free number would be given to the next file, and the finalizer of the copied object would close it.
    """
    if not _descriptors:
        return
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor, device, inode in [each for held in _descriptors.values() for each in held]:
        try:
            status = os.fstat(descriptor)
        except OSError:
            continue  # it was closed, and its holder was not collected yet
        if (status.st_dev, status.st_ino) == (device, inode):
            os.dup2(null, descriptor, inheritable=False)
    os.close(null)
    _descriptors.clear()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
