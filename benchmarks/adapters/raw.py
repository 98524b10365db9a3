"""The bare floor (`floor.py`) as a system."""

import sys
from contextlib import AbstractAsyncContextManager

import floor
from system import HERE


class Raw:
    """A system without features, see `floor.py`."""

    name = "raw"

    def worker(self, url: str) -> list[str]:
        return [sys.executable, str(HERE / "floor.py"), url]

    def open(self, url: str) -> AbstractAsyncContextManager[floor.Client]:
        return floor.Client.open(url)


SYSTEM = Raw()
