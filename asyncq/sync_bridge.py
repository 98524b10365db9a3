"""Runs calls from other threads and loops on the app's loop: `@on_app_loop` for awaited methods,
`@blocking(get)` for their blocking twins.

A twin runs the coroutine on the app's background loop, from any thread. In a thread of a job, it runs the
coroutine on the loop of that job's worker. See `client.sessions`. The background thread is a daemon, and not
an anyio portal: Python joins the thread of a portal before it runs `atexit` handlers, so a script that never
closes its app would hang at its end.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import inspect
import threading
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from asyncq.errors import BrokerUnavailable, SyncInAsyncContext

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


running_loop: Callable[[], asyncio.AbstractEventLoop | None] = asyncio._get_running_loop
"""Returns the event loop that runs on this thread, or None. asyncio documents it under this name. It is the
only way to ask without an exception, which would be expensive: each call asks."""


class LoopOwner(Protocol):
    """An object that can run a coroutine on the app's loop: all sessions of the app, or one of them."""

    def start_on_app_loop(self, coroutine: Coroutine[Any, Any, R]) -> concurrent.futures.Future[R]:
        """Starts the coroutine on the app's loop. It is called on another thread."""
        ...

    def is_on_app_loop(self) -> bool:
        """Whether the app is open on the loop that runs on this thread."""
        ...

    def run_on_app_loop(self, coroutine: Coroutine[Any, Any, R]) -> Coroutine[Any, Any, R]:
        """Runs the coroutine on the app's loop, from any loop. Opens the app on this loop if it is closed."""
        ...


class HasLoopOwner(Protocol):
    """An object whose awaited methods run on the loop of its app."""

    @property
    def _loop_owner(self) -> LoopOwner:
        """Runs its calls. Private, for users have the object in hand."""
        ...


S = TypeVar("S", bound=HasLoopOwner)


def on_app_loop(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Makes an async method awaitable on any loop.

    On the app's own loop the method runs as it is. On another loop, the app's loop runs it.
    """

    @functools.wraps(method)
    def anywhere(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        loop_owner = self._loop_owner
        if loop_owner.is_on_app_loop():
            return method(self, *args, **kwargs)

        async def elsewhere() -> R:
            return await loop_owner.run_on_app_loop(method(self, *args, **kwargs))

        # The method's own coroutine is made only when this one is awaited. Otherwise, after a forgotten
        # `await`, Python would warn of both. The warning shows the name of the called method.
        coroutine: Any = elsewhere()
        coroutine.__qualname__ = method.__qualname__
        return cast("Coroutine[Any, Any, R]", coroutine)

    return anywhere


def blocking(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[[Callable[..., None]], Callable[Concatenate[S, P], R]]:
    """Makes the blocking twin of an async method: same parameters, same result, same errors.

        @blocking(get)
        def get_sync(self) -> None:
            "Blocking twin of `get`."

    The decorated function gives the twin its name and the first line of its docstring, and nothing else. (An
    assignment would not do: each type checker would have to infer the twin's type for itself, and
    `pyright --verifytypes` refuses that.)

    On a thread whose event loop runs, the twin raises `SyncInAsyncContext` at once. It may be called on many
    threads at once. Ctrl-C during the wait cancels the coroutine.
    """

    def named(stub: Callable[..., None]) -> Callable[Concatenate[S, P], R]:
        @functools.wraps(method)
        def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            refuse_in_loop(f"{method.__name__}_sync()", f"await ....{method.__name__}(...)")
            return wait(self._loop_owner, method(self, *args, **kwargs))

        twin.__name__ = stub.__name__
        twin.__qualname__ = stub.__qualname__
        twin.__doc__ = "\n\n".join(filter(None, (stub.__doc__, method.__doc__)))
        return twin

    return named


def overloaded(implementation: Any) -> Any:
    """Returns the decorated implementation of an overloaded method as it is.

    Its type is `Any`, because mypy cannot compare the type that a decorator makes with the overloads.
    """
    return implementation


def wait(loop_owner: LoopOwner, coroutine: Coroutine[Any, Any, R]) -> R:
    """Runs a coroutine on the app's loop, and waits for its end on this thread.

    Raises:
        BrokerUnavailable: the app was closed meanwhile.
    """
    try:
        future = loop_owner.start_on_app_loop(coroutine)
    except BaseException:
        coroutine.close()
        raise
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        # Nobody here has cancelled it. So the app was closed while this thread waited.
        raise BrokerUnavailable("the app was closed") from None
    except BaseException:
        future.cancel()
        raise


def refuse_in_loop(call: str | Callable[[], str], instead: str | Callable[[], str]) -> None:
    """Raises if a blocking call would stop a running event loop.

    Texts that are expensive are given as functions, which are called only for the error.

    Raises:
        SyncInAsyncContext: an event loop runs on this thread. The message names what to write instead.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    call, instead = (text if isinstance(text, str) else text() for text in (call, instead))
    raise SyncInAsyncContext(f"{call} would block the event loop that runs on this thread; use `{instead}`")


class _Inline:
    """The loop owner of objects without an app. Their coroutines never wait, so any thread can run them."""

    def is_on_app_loop(self) -> bool:
        return True

    def run_on_app_loop(self, coroutine: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        return coroutine

    def start_on_app_loop(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            future.set_result(driven(coroutine))
        except BaseException as error:  # noqa: BLE001  whoever reads the future gets it
            future.set_exception(error)
        return future


INLINE = _Inline()

_kept: set[asyncio.Future[Any]] = set()


def keep(future: asyncio.Future[Any]) -> None:
    """Keeps an asyncio task that nobody refers to from being collected before it is done."""
    _kept.add(future)
    future.add_done_callback(_kept.discard)


def call_back(callback: Callable[[T], object], subject: T) -> None:
    """Calls a callback of the user's, on the running loop. A coroutine that it returns runs there, too."""
    returned = callback(subject)
    if inspect.isawaitable(returned):
        keep(asyncio.ensure_future(returned))


def soon(callback: Callable[[T], object], subject: T) -> None:
    """Calls a callback in the next turn of this thread's loop, see `call_back`.

    Raises:
        RuntimeError: there is no running event loop.
    """
    asyncio.get_running_loop().call_soon(call_back, callback, subject)


def driven(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that never waits, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} waits, and there is no event loop here")


async def each(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Makes all calls at once, waits for all, and returns their results in order.

    Raises:
        BaseException: what the first in order of those that failed has raised.
    """
    if running_loop() is None:  # run by `driven`, so that nothing in them waits
        return [await call for call in calls]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return cast("list[T]", answers)


def _new_loop() -> asyncio.AbstractEventLoop:
    """Makes a loop that is only ours: so it may be uvloop's, whatever the program uses."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class LoopThread:
    """An event loop in a daemon thread. At its end it cancels what still runs on it, and closes the loop."""

    def __init__(self) -> None:
        # In an empty context: a loop of uvloop keeps the context in which it is made for as long as it lives.
        self.loop: asyncio.AbstractEventLoop = contextvars.Context().run(_new_loop)
        self._thread = threading.Thread(target=self._run, name="asyncq-loop", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        # A coroutine that was handed over before the end may have begun only now.
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=5))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def end(self) -> None:
        """Makes the loop and the thread end. It may be called on any thread, and does not wait."""
        self.loop.call_soon_threadsafe(self.loop.stop)

    def stop(self) -> None:
        """Ends the loop and the thread, and waits for them, 5 seconds at most. Not for the thread itself."""
        self.end()
        self._thread.join(timeout=5)
