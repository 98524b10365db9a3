"""Runs one delivered job: a delivery in, how it ended out. Knows no Redis.

The body runs in a context of its own in which `current()` is the job and waiting for other jobs is denied.
Whatever the body raises is an outcome, `SystemExit` and `KeyboardInterrupt` among it: a task must not be able
to end its worker. Only a cancellation that the worker itself asked for goes through.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from asyncq import failures, wire
from asyncq.context import Context, current_job, joining
from asyncq.errors import AsyncQError, NotRegistered, PayloadTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio import CapacityLimiter

    from asyncq.tasks import Task


class Claim:
    """What the worker and the runner tell each other about one job: whether it is still wanted, and how far it is.

    A body in a thread begins on that thread while a revocation comes on the loop's. Each side writes its own field before it
    reads the other's, so that at least one of them sees the other.
    """

    __slots__ = ("begun", "started", "wanted")

    def __init__(self) -> None:
        self.wanted = True
        self.begun = False
        self.started: int | None = None

    def begin(self) -> bool:
        """The body is about to begin; False if it must not."""
        self.begun = True
        return self.wanted


class Runner:
    """Runs jobs for one worker.

    Args:
        tasks: by name; looked up, never imported.
        worker: the worker's name, as outcomes show it.
        threads: how many plain functions may run at the same time.
        max_payload: largest encoded result, in bytes.
    """

    def __init__(
        self, tasks: Mapping[str, Task[Any, Any]], worker: str, threads: CapacityLimiter, max_payload: int
    ) -> None:
        self._tasks = tasks
        self._worker = worker
        self._threads = threads
        self._max_payload = max_payload

    def runs_in_thread(self, job: wire.Job) -> bool:
        """Whether the job's body is a plain function, which cannot be cancelled."""
        task = self._tasks.get(job.name)
        return task is not None and not task.is_coroutine

    async def run(self, delivery: wire.Delivery, claim: Claim) -> tuple[str, bytes]:
        """How the job ended: the record's letter and the encoded outcome.

        Args:
            delivery: the job.
            claim: says whether the worker still wants it; if not, `CancelledError` is let through.
        """
        job = delivery.job
        started = claim.started = _now()
        if job.expires is not None and started >= job.expires:
            return wire.EXPIRED, self._ended(delivery, wire.EXPIRED, b"", None)
        try:
            payload = await self._value(delivery, job, claim)
            if len(payload) > self._max_payload:
                raise PayloadTooLarge(
                    f"the result of {job.name} takes {len(payload):,} bytes, more than max_payload={self._max_payload:,}"
                )
            return wire.SUCCEEDED, self._ended(delivery, wire.SUCCEEDED, payload, started)
        except asyncio.CancelledError as error:
            if not claim.wanted:
                raise
            return wire.FAILED, self._failed(delivery, error, started)
        except BaseException as error:
            return wire.FAILED, self._failed(delivery, error, started)

    async def _value(self, delivery: wire.Delivery, job: wire.Job, claim: Claim) -> bytes:
        task = self._tasks.get(job.name)
        if task is None:
            raise NotRegistered(_unknown(job.name, self._tasks))
        args, kwargs = task.arguments.loads(job.body)
        current_job.set(
            Context(
                job.id,
                job.name,
                tuple(args),
                kwargs,
                job.queue,
                delivery.crashes + 1,
                job.parent_id,
                job.root_id or job.id,
                job.headers or _NO_HEADERS,
                self._worker,
            )
        )
        joining.set(False)
        if task.is_coroutine:
            claim.begun = True
            value = await task.function(*args, **kwargs)
        else:
            value = await anyio.to_thread.run_sync(
                partial(_unstoppable, task.function, args, kwargs, claim),
                limiter=self._threads,
                abandon_on_cancel=True,
            )
        return task.returns.dumps(value, path="result")

    def revoked(self, delivery: wire.Delivery, started: int | None) -> bytes:
        """The outcome of a job that was ended by `revoke(terminate=True)`."""
        return self._ended(delivery, wire.REVOKED, b"", started)

    def failed(self, delivery: wire.Delivery, error: BaseException) -> bytes:
        """The outcome of a job that could not be run at all."""
        return self._failed(delivery, error, None)

    def _failed(self, delivery: wire.Delivery, error: BaseException, started: int | None) -> bytes:
        return self._ended(delivery, wire.FAILED, failures.encode(error), started)

    def _ended(self, delivery: wire.Delivery, letter: str, payload: bytes, started: int | None) -> bytes:
        job = delivery.job
        context = current_job.get()
        return wire.encode_ended(
            wire.Ended(
                letter,
                payload,
                started,
                _now(),
                delivery.crashes + 1,
                self._worker,
                job.name,
                job.queue,
                job.enqueued,
                context.children if context is not None else (),
            )
        )


class _Stopped(AsyncQError):
    """A task called `sys.exit()` or raised `KeyboardInterrupt` in its thread."""


def _unstoppable(function: Callable[..., Any], args: Any, kwargs: dict[str, Any], claim: Claim) -> Any:
    """Calls the function in its thread. A `SystemExit` there would end the thread and leave the job
    hanging.
    """
    if not claim.begin():
        return None  # revoked while it waited for a thread; the outcome stands already
    try:
        return function(*args, **kwargs)
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise _Stopped(f"the task raised {type(error).__name__}({error})") from error
    except StopIteration as error:
        # A StopIteration cannot be set on a future; asyncio would raise a TypeError instead.
        raise RuntimeError(f"the task raised StopIteration({error})") from error


def _now() -> int:
    return int(time.time() * 1000)


def _unknown(name: str, tasks: Mapping[str, Any]) -> str:
    shown = name.encode("unicode_escape").decode()[:200]
    known = ", ".join(sorted(tasks)[:10]) or "none"
    return f"this worker does not know the task {shown!r}; it knows {known}. Import the task's module where the app is made."


_NO_HEADERS: dict[str, Any] = {}
