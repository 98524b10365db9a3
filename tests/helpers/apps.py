"""Apps that a test makes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncq import AsyncQ


@contextmanager
def closed_at_the_end(make: Callable[..., AsyncQ]) -> Iterator[Callable[..., AsyncQ]]:
    """Makes apps as `make` does. Blocks are closed by the test, background sessions at the end."""
    made = []

    def make_and_note(*args: Any, **settings: Any) -> AsyncQ:
        app = make(*args, **settings)
        made.append(app)
        return app

    yield make_and_note
    for app in made:
        app.sessions.close_background_sync()
