"""What every harness shows of a test: the jobs that were enqueued, assertions about them, and the time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from asyncq.system import clock

if TYPE_CHECKING:
    from asyncq.app import AsyncQ
    from asyncq.tasks.task import Task
    from asyncq.testing.enqueued_jobs import EnqueuedJob, Journal


class BaseHarness:
    """An app under test.

    Attributes:
        app: the app.
    """

    def __init__(self, app: AsyncQ, journal: Journal) -> None:
        self.app: AsyncQ = app
        self.journal = journal

    @property
    def now(self) -> datetime:
        """The time of the virtual clock, in UTC."""
        return datetime.fromtimestamp(clock.now(), UTC)

    @property
    def jobs(self) -> list[EnqueuedJob]:
        """The jobs that were enqueued since the block began, in order: by this process, on any loop or
        thread, and by its jobs.
        """
        return self.journal.jobs

    def assert_enqueued(self, task: Task[..., Any] | str, /, *args: Any, **kwargs: Any) -> EnqueuedJob:
        """Checks that a job was enqueued, and returns the first that fits.

        Args:
            task: the task, or its name.
            args: the arguments of the call. `add(1, 2)` and `add(1, y=2)` are the same call. Without any
                argument, every call of the task fits.
            kwargs: the same. `unittest.mock.ANY` stands for any value.

        Raises:
            AssertionError: there is no such job. The message shows what was enqueued.
            TypeError: the arguments do not fit the task.

        Example:
            ```python
            job = t.assert_enqueued(add, 4, 4)
            assert job.queue == "urgent"
            ```
        """
        return self.journal.assert_enqueued(task, args, kwargs)

    def assert_not_enqueued(self, task: Task[..., Any] | str, /) -> None:
        """Checks that no job of a task was enqueued.

        Raises:
            AssertionError: there is one. The message shows it.
        """
        self.journal.assert_not_enqueued(task)
