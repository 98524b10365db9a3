"""Apps that a test makes: their background sessions are closed at the end of the test."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncq import AsyncQ


@contextmanager
def closed_at_the_end(make: Callable[..., AsyncQ]) -> Iterator[Callable[..., AsyncQ]]:
    """Gives a function that makes apps as `make` does, and closes their background sessions at the end.
    Blocks are closed by the test itself.
    """
    made = []

    def make_and_note(*args: Any, **settings: Any) -> AsyncQ:
        app = make(*args, **settings)
        made.append(app)
        return app

    yield make_and_note
    for app in made:
        app.sessions.close_background_sync()
