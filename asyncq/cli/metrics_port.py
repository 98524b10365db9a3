"""`asyncq worker --metrics-port`: serves metrics for Prometheus, of one worker or of all of a supervisor.

prometheus-client is imported only where the option is given. The process that the user has started serves:
the worker, or the supervisor of several. Each worker process counts its jobs and measures the queues.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from asyncq.cli.exits import CliError, Code

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager

    from asyncq.app import AsyncQ
    from asyncq.worker import Worker


@contextmanager
def serving(port: int | None, *, is_supervisor: bool = False) -> Iterator[None]:
    """Serves metrics while the block is open; does nothing without a port.

    Args:
        port: the TCP port.
        is_supervisor: whether the metrics are those of processes that are started inside the block.

    Raises:
        CliError: prometheus-client is not installed, another process listens on the port, or the directory
            that the environment names does not exist.
    """
    if port is None:
        yield
        return
    check()
    from asyncq.integrations import prometheus

    with prometheus.shared_directory() if is_supervisor else nullcontext():
        try:
            server = prometheus.MetricsServer(port)
        except ValueError as error:
            named = os.environ[prometheus.DIRECTORY_VARIABLE]
            raise CliError(
                f"{prometheus.DIRECTORY_VARIABLE}={named!r} is no directory",
                "make it, or unset the variable: with --workers, asyncq makes one",
                Code.CONFIGURATION,
            ) from error
        except OSError as error:
            raise CliError(
                f"--metrics-port {port}: {os.strerror(error.errno or 0)}",
                "give a port on which no other process listens, and which this user may use",
            ) from error
        try:
            yield
        finally:
            server.close()


def check() -> None:
    """Checks that prometheus-client is installed.

    Raises:
        CliError: it is not.
    """
    try:
        from asyncq.integrations import prometheus  # noqa: F401
    except ImportError as error:
        raise CliError(
            "--metrics-port needs prometheus-client",
            "pip install 'asyncq[prometheus]'",
            Code.CONFIGURATION,
        ) from error


def count(app: AsyncQ) -> None:
    """Makes the workers of an app count its jobs, if it has no `PrometheusMiddleware` of its own.

    Raises:
        CliError: prometheus-client is not installed.
    """
    check()
    from asyncq.integrations import prometheus

    prometheus.add_if_missing(app)


def measuring(worker: Worker, port: int | None) -> AbstractAsyncContextManager[None]:
    """Returns a block in which the queues of a worker are measured; it does nothing without a port."""
    if port is None:
        return nullcontext()
    from asyncq.integrations import prometheus

    return prometheus.report_queues(worker.app, queues=worker.queues)


def row(port: int | None) -> list[tuple[str, str]]:
    """Returns the row of the banner that says where the metrics are."""
    return [] if port is None else [("metrics", f"http://0.0.0.0:{port}/metrics")]
