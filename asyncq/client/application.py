"""What the rest of asyncq knows of an app and its tasks. `AsyncQ` and `Task` are these; nothing below imports
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from asyncq.execution.task_body import TaskBody

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from asyncq.client.sessions import Sessions
    from asyncq.config import Settings
    from asyncq.serializers import Policy

R_co = TypeVar("R_co", covariant=True)


class App(Protocol):
    """An app: its settings, its tasks by name, and its sessions.

    Attributes:
        settings: how it is configured.
        sessions: its open connections.
        made_in: the file that made it, from where a project's embedded server is found.
        policy: which classes may stand anywhere in its values, and whether they are validated.
    """

    settings: Settings
    sessions: Sessions
    made_in: str | None
    policy: Policy

    def reconfigure(self, **settings: Any) -> None:
        """Puts settings over those that the app has. Only while it is closed."""
        ...

    def find_task(self, name: str, /) -> Runnable | None:
        """The task of a name, also one that is derived from another or comes with asyncq."""
        ...

    def task_named(self, name: str, /) -> Runnable:
        """The task of a name. One that is not registered here can be sent, and not be run."""
        ...

    def is_same(self, other: App, /) -> bool:
        """Whether both look at the same jobs."""
        ...


class Runnable(TaskBody, Protocol):
    """A task of an app, for those who run its function or read what the function returned."""

    @property
    def app(self) -> App:
        """The app that it is registered with."""
        ...


class Returning(Runnable, Protocol[R_co]):
    """A task whose value is an `R`."""

    def call(self, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, R_co]:
        """Enqueues a call and waits for its value."""
        ...
