"""What the integration tests share: waiting with a deadline, and worker processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent


async def until(condition: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
    """Polls a condition (which may be async) until it holds; fails with `what` when the deadline passes."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout:g} s: {what}")
        await asyncio.sleep(0.005)


async def until_state(result: Any, state: str, timeout: float = 10.0) -> None:
    """Refreshes a handle until it shows a state."""

    async def there() -> bool:
        return await result.refresh() == state

    await until(there, f"{result!r} to be {state}", timeout)


def report(text: str) -> None:
    """A measured figure, shown by `pytest -s`."""
    sys.stdout.write(f"{text}\n")


def lines(path: Path) -> list[str]:
    """What jobs have written into a log, see `jobs.note`."""
    return path.read_text().splitlines() if path.exists() else []


class WorkerProcess:
    """A real worker in a process of its own, running `jobs.py`."""

    def __init__(self, url: str, namespace: str, **settings: Any) -> None:
        queues = settings.pop("queues", ())
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ASYNCQ_")},
            "ASYNCQ_URL": url,
            "ASYNCQ_NAMESPACE": namespace,
            "ASYNCQ_LEASE": "2",
            "ASYNCQ_SHARDS": os.environ.get("TEST_SHARDS", "1"),
            **{f"ASYNCQ_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "jobs.py"), *queues],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self.process.pid

    def wait_until_ready(self) -> WorkerProcess:
        """Blocks until the worker has said that it reads."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n", "the worker process did not come up"
        return self

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Ends it as a crash of the machine would, and waits until it is gone."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=10)
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def worker_process(url: str, namespace: str, **settings: Any) -> Iterator[WorkerProcess]:
    """A worker process that reads, killed at the end of the block."""
    worker = WorkerProcess(url, namespace, **settings)
    try:
        yield worker.wait_until_ready()
    finally:
        worker.kill()
