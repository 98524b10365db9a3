"""`Depends`: the default of a parameter that the worker fills when it runs a job.

A task is declared once, on any thread. Nothing here calls the function of a dependency: see
`execution.instances`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, overload

from asyncq.short_repr import brief

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator

T = TypeVar("T")

Scope = Literal["job", "worker"]
"""For how long an instance is used: by one attempt of one job, or by all jobs of a worker."""


class Dependency:
    """What `Depends` returns at run time: the default of a parameter.

    Attributes:
        function: makes the instance.
        scope: who shares it.
    """

    __slots__ = ("function", "scope")

    def __init__(self, function: Callable[..., Any], scope: Scope) -> None:
        self.function: Callable[..., Any] = function
        self.scope: Scope = scope

    def __repr__(self) -> str:
        scope = "" if self.scope == "job" else f", scope={self.scope!r}"
        return f"Depends({name_of(self.function)}{scope})"

    def __getattr__(self, name: str) -> NoReturn:
        # A body that was called here and without its dependency finds this object in the place of it.
        raise AttributeError(
            f"{self!r} is only the default of a parameter, and has no {name!r}: a worker and task.apply() "
            "fill the parameter; a call of the function itself must pass the value"
        )


@overload
def Depends(function: type[T], /, *, scope: Scope = "job") -> T: ...


@overload
def Depends(function: Callable[..., AsyncGenerator[T, Any]], /, *, scope: Scope = "job") -> T: ...


@overload
def Depends(function: Callable[..., AsyncIterator[T]], /, *, scope: Scope = "job") -> T: ...


@overload
def Depends(function: Callable[..., Generator[T, Any, Any]], /, *, scope: Scope = "job") -> T: ...


@overload
def Depends(function: Callable[..., Iterator[T]], /, *, scope: Scope = "job") -> T: ...


@overload
def Depends(function: Callable[..., Awaitable[T]], /, *, scope: Scope = "job") -> T: ...


@overload
def Depends(function: Callable[..., T], /, *, scope: Scope = "job") -> T: ...


def Depends(function: Callable[..., Any], /, *, scope: Scope = "job") -> Any:
    """Declares a parameter of a task that the worker fills.

    It is the default of the parameter, which is no part of a call: `delay` does not take it. A call of the
    function itself may pass it.

    Args:
        function: makes the value. It is a function, a coroutine function, a generator function that yields
            once (async or not), or a class. It may have such parameters itself, and no others without a
            default. A plain function runs in a thread, and in the body's own thread if the task is a plain
            function. What stands behind the `yield` of a generator runs after the body, whatever happened,
            and the body's exception is raised at the `yield`. `Depends(asyncq.current)` gives the context.
        scope: `"job"`: one instance for each attempt of a job, also if several parameters need it.
            `"worker"`: one for each worker, made when the first job needs it, and cleaned up at the end of
            the worker; it can only have dependencies of the same scope.

    Raises:
        TypeError: `function` cannot be called.
        ValueError: there is no such scope.

    Example:
        ```python
        async def get_session(pool: Pool = Depends(get_pool, scope="worker")) -> AsyncIterator[Session]:
            async with pool.session() as session, session.begin():
                yield session  # committed after the body, rolled back if it fails

        @app.task
        async def rename(user: int, name: str, session: Session = Depends(get_session)) -> None:
            await session.execute(update(User).where(User.id == user).values(name=name))

        await rename.delay(7, "Ada")
        ```
    """
    if not callable(function):
        raise TypeError(
            f"Depends({brief(function)}): give the function that makes the value, as in Depends(get_pool), "
            "and do not call it"
        )
    if scope not in {"job", "worker"}:
        raise ValueError(f'scope={brief(scope)}: use "job" or "worker"')
    return Dependency(function, scope)


def name_of(function: Callable[..., Any]) -> str:
    """Returns how messages call a function."""
    return getattr(function, "__qualname__", None) or brief(function)


def key_of(function: Callable[..., Any]) -> Any:
    """Returns what identifies the function of a dependency: equal keys share an instance."""
    try:
        hash(function)
    except TypeError:
        return id(function)
    return function
