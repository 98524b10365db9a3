"""Says which extra brings a library that is not installed. It knows none of the libraries."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """Stands around the imports of libraries that an extra of asyncq brings.

    Args:
        name: of the extra.

    Raises:
        ModuleNotFoundError: a library is not installed. The message names the extra that brings it.

    Example:
        ```python
        with needs_extra("flask"):
            from flask import Blueprint
        ```
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in {"", "asyncq"}:  # a fault of ours, which no extra mends
            raise
        raise ModuleNotFoundError(
            f"asyncq.integrations.{name} needs the library {library}, which is not installed: "
            f"pip install 'asyncq[{name}]'",
            name=error.name,
        ) from error
