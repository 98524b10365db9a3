"""The run of a job in a child process, as a body: it returns the job's value, or raises its error.

A child process answers with a run result, which is encoded. Where hooks surround the body, they are to see
what they see of every other body. Runs on the worker's loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq import failures, wire
from asyncq.context import Replaced
from asyncq.execution.run_results import Finish, Replace, Requeue
from asyncq.outcome import Outcome
from asyncq.serializers import PLAIN_VALUE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncq.serializers import ValueCodec


class ProcessBody:
    """A run in a child process.

    Args:
        run: makes the run.
        returns: decodes the value.

    Attributes:
        run_result: what the run came to; None before that.
        error: what `run` raised because of that.
    """

    def __init__(self, run: Callable[[], Awaitable[Finish | Requeue | Replace]], returns: ValueCodec) -> None:
        self._run = run
        self._returns = returns
        self.run_result: Finish | Requeue | Replace | None = None
        self.error: BaseException | None = None

    async def run(self) -> Any:
        """Runs the job, and returns its value.

        Raises:
            BaseException: the failure of the attempt; `Replaced` if a workflow takes the job's place;
                `TaskExpired` if the job expired while it waited for a process.
        """
        run_result = self.run_result = await self._run()
        if isinstance(run_result, Finish) and run_result.letter == wire.SUCCEEDED:
            ended = wire.decode_ended(run_result.letter, run_result.outcome)
            return self._returns.loads(ended.payload)
        error = self.error = _error_of(run_result)
        raise error


def _error_of(run_result: Finish | Requeue | Replace) -> BaseException:
    if isinstance(run_result, Replace):
        return Replaced(run_result.jobs)
    if run_result.error is not None:
        return run_result.error
    if isinstance(run_result, Requeue):
        return failures.decode(run_result.failure).rebuild()
    ended = wire.decode_ended(run_result.letter, run_result.outcome)
    outcome: Outcome[Any] = Outcome("", ended, PLAIN_VALUE)
    assert outcome.error is not None, "the job did not succeed"
    return outcome.error
