"""The protocols by which the rest of asyncq knows an app and its tasks.

`AsyncQ` and `Task` satisfy them. Nothing below imports those two classes, so imports only go down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from asyncq.execution.task_body import TaskBody

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from asyncq.client.sessions import Sessions
    from asyncq.config import Settings
    from asyncq.dependencies.overrides import Overrides
    from asyncq.middleware.run_chain import RunHook
    from asyncq.serializers import Policy

R_co = TypeVar("R_co", covariant=True)


class App(Protocol):
    """An app: its settings, its tasks by name, and its sessions.

    Attributes:
        settings: how it is configured.
        sessions: its open connections.
        made_in: the file that made it. The embedded server of a project is found from there.
        policy: which classes may stand anywhere in its values, and whether instances are validated.
        run_hooks: the hooks around each body, the first of them outermost.
        overrides: what stands for the functions of dependencies.
    """

    settings: Settings
    sessions: Sessions
    made_in: str | None
    policy: Policy
    run_hooks: list[RunHook]
    overrides: Overrides

    def reconfigure(self, **settings: Any) -> None:
        """Changes settings of the app. The app must be closed."""
        ...

    def find_task(self, name: str, /) -> Runnable | None:
        """Returns the task of a name, or None. It also finds batch tasks (`<name>*`) and the barrier task."""
        ...

    def task_named(self, name: str, /) -> Runnable:
        """Returns the task of a name. A task that is not registered here can be sent, but not run."""
        ...

    def is_same(self, other: App, /) -> bool:
        """Returns whether both apps see the same jobs."""
        ...


class Runnable(TaskBody, Protocol):
    """A task of an app, for code that runs its function or decodes what the function returned."""

    @property
    def app(self) -> App:
        """The app that it is registered with."""
        ...


class Returning(Runnable, Protocol[R_co]):
    """A task whose value is an `R`."""

    def call(self, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, R_co]:
        """Enqueues a call and waits for its value."""
        ...
