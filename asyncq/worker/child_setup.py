"""What every process that a worker starts for its jobs is told, whatever it is told besides."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from asyncq import logs
from asyncq.main_module import surroundings

if TYPE_CHECKING:
    from asyncq.app import AsyncQ


def child_setup(app: AsyncQ, target: str | None, url: str) -> dict[str, Any]:
    """Makes the set-up. It goes over a pipe and not into arguments, for the URL may hold a password.

    Args:
        app: whose jobs they are.
        target: `module:attribute` of it; None if the worker was given none.
        url: of the server itself: what the app calls `memory://` would be another one there.
    """
    settings = {**dataclasses.asdict(app.settings), "url": url, "strict": False}
    return {**surroundings(), "target": target, "settings": settings, "logging": logs.for_children()}
