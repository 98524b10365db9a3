"""The bare floor (`floor.py`): bare RESP over hiredis and uvloop, everything pipelined, no features."""

import sys
from contextlib import AbstractAsyncContextManager

import floor
from system import HERE, System


class Raw(System):
    """A system without features, see `floor.py`."""

    name = "raw"
    promise = "nothing: the jobs of a dead worker stay where they are"
    recovers_within = 10.0
    share = 1.0
    has_batch = True
    hands_back = False
    empty_streams_mean_stored = True

    def worker(self, url: str) -> list[str]:
        return [sys.executable, str(HERE / "floor.py"), url]

    def open(self, url: str, callers: int = 1) -> AbstractAsyncContextManager[floor.Client]:  # noqa: ARG002
        return floor.Client.open(url)


SYSTEM = Raw()
