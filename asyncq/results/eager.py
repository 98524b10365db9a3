"""The handle of a call that `task.apply(...)` made: it has ended, and there is no server to ask.

All that differs from the handle of a job at the server is in `local_call`, so it may be used on any thread,
with or without an event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from asyncq.outcome import Outcome
from asyncq.results.handle import AsyncResult
from asyncq.results.local_call import GivenOutcome, LocalCall
from asyncq.results.view import handle_of
from asyncq.short_repr import brief
from asyncq.states import READY_STATES, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncq import wire
    from asyncq.client.application import App, Runnable

R_co = TypeVar("R_co", covariant=True)


class EagerResult(AsyncResult[R_co]):
    """Is the handle of a call that has ended already, without a server: `task.apply(...)` returns it.

    It has the methods of `AsyncResult`: `await result` returns the value or raises, twins such as `get_sync`
    work, and it may stand in a `ResultSet` beside others. None of them waits, so they may be called inside a
    task, too. `refresh` and `revoke` change nothing, `events` gives the final event, and `forget` drops the
    value.

    Args:
        id: any id.
        value: what the task returned, or what it raised, as the state says.
        state: `SUCCESS`, `FAILURE` or `REVOKED`.
        traceback: where it failed, as text.
        name: the task's name.
        app: the app; by default the only one of this process, if it is asked for.

    Raises:
        ValueError: the state is no final one, or the value of a failure is no exception.

    Example:
        ```python
        result = add.apply(args=(4, 4))
        print(result.state, result.get_sync())  # SUCCESS 8
        ```
    """

    __slots__ = ()

    def __init__(
        self,
        id: str,
        value: R_co | BaseException | None,
        state: State | str,
        traceback: str | None = None,
        *,
        name: str | None = None,
        app: App | None = None,
    ) -> None:
        super().__init__(id, app)
        if state not in READY_STATES:
            raise ValueError(
                f"state={brief(state)}: an eager result has ended, as SUCCESS, FAILURE or REVOKED"
            )
        if state == State.FAILURE and not isinstance(value, Exception):
            raise ValueError(f"state=FAILURE needs the exception that was raised, not {brief(value)}")
        outcome: GivenOutcome[R_co] = GivenOutcome(id, value, State(state), traceback, name)
        self._job = LocalCall(outcome, app)

    def unwrap(self) -> R_co | None:
        """Returns the value, or raises what the task raised; None once it is forgotten."""
        outcome = self._job.known()
        return None if outcome is None else outcome.unwrap()

    def then(
        self,
        callback: Callable[[AsyncResult[R_co]], object],
        on_error: Callable[[AsyncResult[R_co]], object] | None = None,
    ) -> EagerResult[R_co]:
        """Calls `callback(result)` in the next turn of this thread's loop, or `on_error` after a failure.

        Raises:
            RuntimeError: there is no running event loop to call back in.
        """
        super().then(callback, on_error)
        return self

    def __reduce__(self) -> Any:
        raise TypeError("an EagerResult exists only in this process; send its value instead")


def eager_result(
    task: Runnable,
    job: wire.Job,
    ended: wire.Ended,
    items: Sequence[bytes],
    args: tuple[Any, ...] | None,
    kwargs: dict[str, Any] | None,
) -> EagerResult[Any]:
    """Makes the handle of a call that ran here. `items` are what it yielded."""
    call: LocalCall[Any] = LocalCall(Outcome(job.id, ended, task.returns), task.app, task, items)
    call.args, call.kwargs, call.is_ignored = args, kwargs, job.ignore_result
    handle: EagerResult[Any] = handle_of(EagerResult, call)
    return handle
