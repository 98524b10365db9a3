"""Runs the `on_run` methods of an app around the body of a job. Runs in the asyncio task of the job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from asyncq.context import Context

RunHook = Callable[[Context, Callable[[Context], Awaitable[Any]]], Awaitable[Any]]
"""The `on_run` of a middleware."""


async def run(hooks: Sequence[RunHook], job: Context, body: Callable[[], Awaitable[Any]]) -> Any:
    """Runs a body inside of all hooks, and returns what the outermost returns.

    Args:
        hooks: the first is the outermost.
        job: the job.
        body: runs the body. It is called at most once; if a hook does not call the next one, never.

    Raises:
        BaseException: what the body, or a hook, raised.
    """
    has_run = False

    async def innermost(given: Context) -> Any:
        nonlocal has_run
        if given is not job:
            raise TypeError(f"call_next takes the job that on_run was given, not {given!r}")
        if has_run:
            raise RuntimeError(
                f"on_run called call_next twice for job {job.id!r}: an attempt runs the body once. To run it "
                "again, use retry=Retry(...), or raise RetryLater"
            )
        has_run = True
        return await body()

    proceed: Callable[[Context], Awaitable[Any]] = innermost
    for hook in reversed(hooks):
        proceed = _around(hook, proceed)
    return await proceed(job)


def _around(
    hook: RunHook, call_next: Callable[[Context], Awaitable[Any]]
) -> Callable[[Context], Awaitable[Any]]:
    return lambda job: hook(job, call_next)
