"""The registry: which servers this process holds, also across its forks and at its end."""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import weakref
    from pathlib import Path

    from asyncq.broker.embedded.handle import Held


class Registry:
    """What this process holds. One mutex for all of it: starting and leaving are rare and short."""

    # Re-entrant, so that a signal handler that releases does not lock up the main thread.
    mutex: ClassVar[threading.RLock] = threading.RLock()
    held: ClassVar[dict[Path | weakref.ref[Any] | None, Held]] = {}
    """By the project's directory; a throw-away server by its owner."""

    @classmethod
    def close_all(cls) -> None:
        """Let go of every server, at the end of the process."""
        with cls.mutex:
            for held in list(cls.held.values()):
                held.close()

    @classmethod
    def before_fork(cls) -> None:
        """Nobody starts or leaves during a fork: a child would hold the start.lock it inherits for life."""
        cls.mutex.acquire()

    @classmethod
    def after_fork(cls) -> None:
        """The parent goes on."""
        cls.mutex.release()

    @classmethod
    def forked(cls) -> None:
        """The child takes locks of its own, and lets go of what belongs to the parent alone."""
        cls.mutex = threading.RLock()
        for held in list(cls.held.values()):
            held.forked()


atexit.register(Registry.close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=Registry.before_fork,
        after_in_parent=Registry.after_fork,
        after_in_child=Registry.forked,
    )
