"""The base class of middleware: code of an app that runs around each enqueue, and around each attempt.

`on_enqueue` runs on the loop of the session that enqueues, and `on_run` in the asyncio task of the job.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from asyncq.short_repr import brief

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncq.context import Context
    from asyncq.middleware.outgoing_call import Call


class Middleware:
    """Runs around each enqueue of an app, and around each attempt of its jobs. Derive from it, and register
    an instance with `app.add_middleware`. Each method may be left out, but not both `on_enqueue` and
    `on_run`.

    Example:
        ```python
        class Tenant(asyncq.Middleware):
            async def on_enqueue(self, call, call_next):
                call.headers["tenant"] = tenant.get()
                return await call_next(call)

            async def on_run(self, job, call_next):
                token = tenant.set(job.headers.get("tenant"))
                try:
                    return await call_next(job)
                finally:
                    tenant.reset(token)

        app.add_middleware(Tenant())
        ```
    """

    def on_add(self, app: Any) -> None:
        """Is called once by `app.add_middleware`, before the app uses the middleware. Here a middleware may
        register outcome hooks of its own, for it does not learn what became of a job that it has seen.

        Args:
            app: the `AsyncQ` that it is added to.

        Raises:
            Exception: whatever it raises, `add_middleware` raises, and the middleware is not added.

        Example:
            ```python
            def on_add(self, app: AsyncQ) -> None:
                app.on_failure(self.report)
            ```
        """

    async def on_enqueue(self, call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> Any:
        """Runs around the enqueue of one job, in the process that enqueues it.

        Of a batch or a workflow, the calls run up to `call_next` before anything is sent, and go on when the
        server has answered. So nothing may be held across `call_next` that another call waits for.

        Args:
            call: what is to be enqueued. Its headers may be changed until `call_next`.
            call_next: sends the call, after the next middleware. It returns True if the server has accepted a
                new job, and False if the call met the job of an equal call with the same `key=`. It raises
                what `Task.delay` raises.

        Returns:
            What `call_next` returned, for the middleware around this one.

        Raises:
            Exception: whatever it raises before `call_next` refuses the call: the caller gets the exception,
                and nothing is enqueued. What it raises afterwards the caller gets, too, but the job exists.
        """
        return await call_next(call)

    async def on_run(self, job: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
        """Runs around one attempt of a job, in its worker. `asyncq.current()` is the job.

        It is not called for jobs whose body cannot begin: the job has expired, its task is not known here, or
        its arguments cannot be read.

        Args:
            job: the job.
            call_next: runs the next middleware, and at last the body, once. It returns the body's value, and
                raises what the attempt failed with: the body's exception, `TimeLimitExceeded`, `WorkerLost`.

        Returns:
            The value of the job. Without a call of `call_next`, the body does not run.

        Raises:
            Exception: whatever it raises is the failure of this attempt, and may be tried again by the retry
                policy of the task.
            asyncio.CancelledError: the job was terminated, or its worker stops. Let it through.
        """
        return await call_next(job)


def check(middleware: object) -> None:
    """Checks that something is a middleware.

    Raises:
        TypeError: it is a class or something else, it has neither of the two methods, or a method of it is
            not a coroutine function.
    """
    if isinstance(middleware, type) and issubclass(middleware, Middleware):
        name = middleware.__name__
        raise TypeError(f"add_middleware takes an instance: write add_middleware({name}()), not {name}")
    if not isinstance(middleware, Middleware):
        raise TypeError(
            "add_middleware takes an instance of a class that derives from asyncq.Middleware, "
            f"not {brief(middleware)}"
        )
    name = type(middleware).__name__
    if not any(has_own(middleware, method) for method in ("on_enqueue", "on_run")):
        raise TypeError(f"{name} has neither on_enqueue nor on_run, so it would do nothing")
    for method in ("on_enqueue", "on_run"):
        if not inspect.iscoroutinefunction(getattr(middleware, method)):
            raise TypeError(f"{name}.{method} is not a coroutine function: write async def {method}(...)")


def has_own(middleware: Middleware, method: str) -> bool:
    """Returns whether a middleware has a method of its own, and not only that of the base class."""
    own = getattr(middleware, method)
    return getattr(own, "__func__", own) is not getattr(Middleware, method)
