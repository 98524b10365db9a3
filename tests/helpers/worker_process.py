"""A real worker in a process of its own, which a test may signal and kill."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from helpers import servers
from helpers.forked import TESTS, Forked
from helpers.signed import of_secrets

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator


class WorkerProcess:
    """A real worker in a process of its own.

    Args:
        url: the server's URL.
        namespace: the namespace of its app.
        settings: settings of its app; also `module`, the module to run, and `queues`, its arguments.
    """

    def __init__(self, url: str, namespace: str, **settings: Any) -> None:
        queues = settings.pop("queues", ())
        module = settings.pop("module", "helpers.worker_jobs")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ASYNCQ_")},
            "PYTHONPATH": str(TESTS),
            "ASYNCQ_URL": url,
            "ASYNCQ_NAMESPACE": namespace,
            "ASYNCQ_LEASE": "2",
            **servers.for_processes(),
            **of_secrets(),
            **{f"ASYNCQ_{name.upper()}": str(value) for name, value in settings.items()},
        }
        words = ["-m", module, *queues]
        self.process = Forked(words, TESTS, environment, stderr=subprocess.DEVNULL)
        self.pid = self.process.pid

    def wait_until_ready(self) -> WorkerProcess:
        """Blocks until the worker has printed that it is ready."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", "the worker process did not come up"
        return self

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kills the worker, as a crash of the machine would, and waits until it has ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=30)
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def worker_process(url: str, namespace: str, **settings: Any) -> Iterator[WorkerProcess]:
    """Gives a worker process that is ready, and kills it at the end of the block."""
    worker = WorkerProcess(url, namespace, **settings)
    try:
        yield worker.wait_until_ready()
    finally:
        worker.kill()
