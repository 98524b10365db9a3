"""Shows what the jobs of a worker do now: each with its stack. `stacks_of` runs on the worker's loop, or on
another thread while the loop is blocked, and changes nothing; `formatted` reads the lines of the source, and
may run in a thread.

The stack of a coroutine that waits is the chain of what it awaits. asyncio shows only the outermost frame of
it, so the chain is followed here. What runs in a thread has the stack of that thread.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq.execution import executors
from asyncq.execution.executors import RUNNING
from asyncq.system import clock, threads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import FrameType

    from asyncq.worker.attempt import RunningJob

LONGEST_STACK = 50
"""Most frames of one stack; those next to where it waits."""
_OWN = {"asyncq", "anyio", "asyncio", "concurrent", "threading"}
"""The packages whose frames above the body are left out."""


class JobStack(NamedTuple):
    """What one job does.

    Attributes:
        title: the job, its attempt, and how far it is.
        frames: from the body of its task to where it waits.
    """

    title: str
    frames: list[traceback.FrameSummary]


def stacks_of(
    jobs: Iterable[RunningJob], blocking: asyncio.Task[Any] | None = None, loop_thread: int | None = None
) -> list[JobStack]:
    """Returns what each of the jobs does now.

    Args:
        jobs: the jobs.
        blocking: the task that blocks the loop, if this is called on another thread.
        loop_thread: the identifier of the loop's thread, with `blocking`.
    """
    running = threads.frames()
    blocked = None if loop_thread is None else running.get(loop_thread)
    return [_stack_of(job, running, None if job.task is not blocking else blocked) for job in jobs]


def formatted(stacks: Sequence[JobStack]) -> str:
    """Returns stacks as text, each as Python prints a traceback."""
    texts = [
        f"{stack.title}\n{''.join(traceback.StackSummary.from_list(stack.frames).format())}"
        for stack in stacks
    ]
    return "\n".join(texts)


def _stack_of(job: RunningJob, running: Mapping[int, FrameType], blocked: FrameType | None) -> JobStack:
    """Returns what a job does.

    Args:
        job: the job.
        running: what each thread executes.
        blocked: what the thread of the loop executes, if this job blocks the loop.
    """
    delivery = job.delivery
    ran = "" if job.started is None else f", for {max(0.0, clock.now() - job.started / 1000):,.1f} s"
    title = f"{delivery.job.name} {delivery.job.id}: attempt {delivery.attempt}, {_state(job)}{ran}"
    frame = running.get(job.thread) if job.in_thread and job.thread is not None else None
    if frame is not None:
        places = list(traceback.walk_stack(frame))[::-1]
    elif blocked is not None and job.task is not None:
        places = _from(getattr(job.task.get_coro(), "cr_frame", None), blocked)
    elif job.task is not None and job.interrupt is None:
        places = list(_chain(job.task.get_coro()))
    else:
        places = []
    return JobStack(title, [_summary(*place) for place in _of_body(places)[-LONGEST_STACK:]])


def _state(job: RunningJob) -> str:
    if job.state is not RUNNING:
        return job.state.value
    if job.interrupt is not None:
        return "running in a process of its own, whose stack is not known here"
    return "running in a thread" if job.in_thread else "running"


def _summary(frame: FrameType, line: int) -> traceback.FrameSummary:
    code = frame.f_code
    return traceback.FrameSummary(code.co_filename, line, code.co_name, lookup_line=False)


def _chain(awaitable: Any) -> Iterator[tuple[FrameType, int]]:
    """Yields the frames of a coroutine that waits, from the outermost to where it waits."""
    while awaitable is not None:
        frame = _first(awaitable, "cr_frame", "gi_frame", "ag_frame")
        if frame is None:
            return
        yield frame, frame.f_lineno
        awaitable = _first(awaitable, "cr_await", "gi_yieldfrom", "ag_await")
        if awaitable is None and frame.f_globals.get("__name__") == executors.__name__:
            awaitable = frame.f_locals.get("body")  # a body with a soft time limit is driven step by step


def _from(outermost: FrameType | None, innermost: FrameType) -> list[tuple[FrameType, int]]:
    """Returns the frames of a coroutine that runs now: those of its thread without the ones of the loop."""
    places: list[tuple[FrameType, int]] = []
    for frame, line in traceback.walk_stack(innermost):
        places.insert(0, (frame, line))
        if frame is outermost:
            break
    return places


def _first(owner: Any, *names: str) -> Any:
    """Returns the first of these attributes that is there and not None, else None."""
    return next((found for name in names if (found := getattr(owner, name, None)) is not None), None)


def _of_body(frames: list[tuple[FrameType, int]]) -> list[tuple[FrameType, int]]:
    """Leaves out the frames above the body: those of asyncq, and of what runs threads."""
    for number, (frame, _) in enumerate(frames):
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] not in _OWN:
            return frames[number:]
    return frames
