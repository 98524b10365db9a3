"""What an event follower and a stream reader use of the job that they follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from asyncq.broker.waiters import Waiter
    from asyncq.client.application import App
    from asyncq.outcome import Outcome
    from asyncq.states import State


class Followed(Protocol):
    """A job at the server that is being followed. `waiter` is for the loop of the session that serves it."""

    @property
    def id(self) -> str:
        """The job's id."""
        ...

    @property
    def app(self) -> App:
        """The app of the job."""
        ...

    @property
    def state(self) -> State | str:
        """The state as last seen."""
        ...

    def waiter(self) -> Waiter:
        """Returns the waiter of the job in this session."""
        ...

    def known(self) -> Outcome[Any] | None:
        """Returns the outcome, if this process knows it."""
        ...
