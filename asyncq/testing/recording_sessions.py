"""The sessions of an app during a test: they lead to the private server, and note what goes through them.

`app.sessions` is where every call of an app begins, so a harness puts `RecordingSessions` there, and the app
keeps its own sessions for afterwards. They note each job that is enqueued, and each block that opens the app,
with the line of the user's code that did it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from asyncq.broker.enqueue import Intake
from asyncq.broker.schedule_store import ScheduleStore
from asyncq.broker.schema import answer_tags
from asyncq.client.session import Session
from asyncq.client.sessions import Sessions
from asyncq.testing.call_sites import caller, in_other_thread

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence

    from asyncq import wire
    from asyncq.app import AsyncQ
    from asyncq.broker.commands import Commands
    from asyncq.broker.enqueue import Answer, ExistingJob
    from asyncq.broker.schedule_store import Change, ChangeAnswer
    from asyncq.broker.transport.connection import Address
    from asyncq.broker.waiters import Waiter
    from asyncq.client.application import App
    from asyncq.middleware.enqueue_chain import EnqueueHook
    from asyncq.middleware.outgoing_call import Call
    from asyncq.testing.enqueued_jobs import Journal, JournalEntry

    AddressOf = Callable[[str, Callable[[], None] | None], Address]
    """Makes the address of a server, see `Sessions.address_of`."""

R = TypeVar("R")

_BACKGROUND = "the background loop"
_is_blocking_block: ContextVar[bool] = ContextVar("_is_blocking_block", default=False)
"""Whether `with app:` opens the block. Its end does not tell on which loop it was."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """An open block, or a call of `open`: its loop, its asyncio task, and the line that opened it."""

    is_call: bool
    loop: object
    task: asyncio.Task[Any] | None
    site: str | None


class RecordingIntake(Intake):
    """What a session gives to the server, and a note of each job that the server accepts.

    Args:
        commands: of the session.
        journal: notes the jobs.
        waiters: the waiters of the session's jobs, by id.
    """

    def __init__(self, commands: Commands, journal: Journal, waiters: Mapping[str, Waiter]) -> None:
        super().__init__(commands)
        self._journal = journal
        self._waiters = waiters

    def _begin(self, jobs: Iterable[wire.Job]) -> list[JournalEntry]:
        entries = self._journal.begin(jobs)
        for entry in entries:
            entry.waiter = self._waiters.get(entry.job.id)
        return entries

    def enqueue(self, job: wire.Job, message: bytes) -> asyncio.Future[Answer]:
        """Enqueues a job. It is noted when the answer is here, before the caller goes on."""
        entries = self._begin([job])
        answer = super().enqueue(job, message)

        def note(answer: asyncio.Future[Answer]) -> None:
            is_new = not answer.cancelled() and answer.exception() is None and answer.result() is True
            self._journal.end(entries, is_accepted=is_new)

        answer.add_done_callback(note)
        return answer

    async def enqueue_many(
        self, jobs: Sequence[tuple[wire.Job, bytes]]
    ) -> list[tuple[wire.Job, ExistingJob]]:
        """Enqueues jobs, and notes those that are new."""
        entries = self._begin(job for job, _ in jobs)
        try:
            others = await super().enqueue_many(jobs)
        except BaseException:
            self._journal.end(entries, is_accepted=False)
            raise
        existing = {id(job) for job, _ in others}
        for entry in entries:
            self._journal.end([entry], is_accepted=id(entry.job) not in existing)
        return others

    async def submit(self, jobs: Sequence[tuple[wire.Job, bytes]]) -> None:
        """Enqueues the jobs of a workflow, and notes them."""
        entries = self._begin(job for job, _ in jobs)
        is_accepted = False
        try:
            await super().submit(jobs)
            is_accepted = True
        finally:
            self._journal.end(entries, is_accepted=is_accepted)


class RecordingSchedules(ScheduleStore):
    """The schedules of a session, and a note of each job that a tick has made.

    Args:
        commands: of the session.
        note: notes a job.
    """

    def __init__(self, commands: Commands, note: Callable[[wire.Job], None]) -> None:
        super().__init__(commands)
        self._note = note

    async def put(self, change: Change) -> ChangeAnswer:
        """Changes a schedule, and notes the job of its tick."""
        answer = await super().put(change)
        if change.tick is not None and answer.tag == answer_tags.ACCEPTED:
            self._note(dataclasses.replace(change.tick.job, id=answer.job_id))
        return answer


class RecordingSession(Session):
    """A session that notes what is enqueued, and who waits for it."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        sessions = app.sessions
        assert isinstance(sessions, RecordingSessions)
        self._journal = sessions.journal
        self._waiters: dict[str, Waiter] = {}
        self._unended: set[str] = set()

    async def until_open(self) -> None:
        """Waits until the session is open."""
        await super().until_open()
        if not isinstance(self.broker.intake, RecordingIntake):
            self.broker.intake = RecordingIntake(self.broker.commands, self._journal, self._waiters)
            self.broker.schedules = RecordingSchedules(self.broker.commands, self._note_tick)

    def announce(self, job: wire.Job, *, new: bool = False) -> Waiter:
        """Returns the waiter of a job, and keeps it."""
        waiter = super().announce(job, new=new)
        if not job.ignore_result:
            self._waiters[job.id] = waiter
            self._unended.add(job.id)
        return waiter

    async def around_enqueue(
        self,
        jobs: Sequence[tuple[wire.Job, bytes]],
        send: Callable[[list[tuple[wire.Job, bytes]]], Awaitable[Sequence[bool | Exception]]],
    ) -> None:
        """Runs the hooks, and notes a workflow that replaces a running job: that does not pass the intake."""
        is_replacement = self._journal.has(jobs[-1][0])  # it takes the place of the job that is replaced
        await super().around_enqueue(jobs, send)
        if is_replacement:
            self._journal.end(self._journal.begin(job for job, _ in jobs), is_accepted=True)

    def _note_tick(self, job: wire.Job) -> None:
        """Notes the job of a tick, which no line of code has enqueued."""
        entries = self._journal.begin([job])
        for entry in entries:
            entry.site = None
            if not job.ignore_result:
                entry.waiter = self._waiters[job.id] = self.listener.waiter(job.id)
                self._unended.add(job.id)
        self._journal.end(entries, is_accepted=True)

    async def learn_states(self) -> None:
        """Fetches the states of the jobs that are not known to have ended. Their handles show them then."""
        if not self.is_open:
            return
        waiting = [waiter for id_ in self._unended if (waiter := self._waiters[id_]).ended is None]
        # Of a call that is not answered yet, the server may know nothing.
        waiting = [waiter for waiter in waiting if waiter.accepted]
        answers = await asyncio.gather(*(self.broker.state(waiter.id) for waiter in waiting))
        for waiter, answer in zip(waiting, answers, strict=True):
            self.listener.take_status(waiter, answer)
        self._unended = {
            id_ for id_ in self._unended if self._waiters[id_].ended is None and not self._waiters[id_].gone
        }


class RecordingSessions(Sessions):
    """The sessions of an app during a test.

    Args:
        app: the app.
        journal: notes what is enqueued.
        own: the app's own sessions, whose hooks are called.

    Attributes:
        journal: as given.
    """

    session_class: type[Session] = RecordingSession

    def __init__(self, app: AsyncQ, journal: Journal, own: Sessions) -> None:
        super().__init__(app)
        self.journal: Journal = journal
        self.on_enqueue: list[EnqueueHook] = [*own.on_enqueue, _passed_on]
        self.address_of: AddressOf = _with_virtual_clock(self.address_of)
        self._blocks: list[_Block] = []

    def recorders(self) -> list[RecordingSession]:
        """Returns the sessions that are open now."""
        return [session for session in self.all_open() if isinstance(session, RecordingSession)]

    async def hold(self) -> None:
        """Opens the app on this loop, until `release`."""
        await super().enter()

    async def release(self) -> None:
        """Ends what `hold` began, and closes the background session."""
        await self.close_background()
        await super().leave()

    # -- who makes a call --

    def start_on_app_loop(self, coroutine: Coroutine[Any, Any, R]) -> concurrent.futures.Future[R]:
        """Starts a coroutine as `Sessions` does, and lets it know which line made the call."""
        token = in_other_thread.set(in_other_thread.get() or self.journal.sites.here())
        try:
            return super().start_on_app_loop(coroutine)
        finally:
            in_other_thread.reset(token)

    # -- blocks --

    async def enter(self, *, is_call: bool = False) -> None:
        """Begins a block as `Sessions` does, and notes the line that did it."""
        site = in_other_thread.get() or caller()
        loop: object = _BACKGROUND if _is_blocking_block.get() else asyncio.get_running_loop()
        await super().enter(is_call=is_call)
        self._blocks.append(_Block(is_call, loop, asyncio.current_task(), site))

    async def leave(self) -> None:
        """Ends a block."""
        self._end_block(asyncio.get_running_loop(), asyncio.current_task())
        await super().leave()

    async def undo_open(self) -> bool:
        """Undoes one call of `open`."""
        was_open = await super().undo_open()
        if was_open:
            self._end_block(asyncio.get_running_loop(), is_call=True)
        return was_open

    def enter_background(self) -> None:
        """Begins a block of blocking code."""
        token = _is_blocking_block.set(True)
        try:
            super().enter_background()
        finally:
            _is_blocking_block.reset(token)

    def leave_background(self) -> None:
        """Ends a block of blocking code."""
        self._end_block(_BACKGROUND)
        super().leave_background()

    def _end_block(
        self, loop: object, task: asyncio.Task[Any] | None = None, *, is_call: bool = False
    ) -> None:
        """Forgets a block: the last of this task, else of the loop. A fixture may end what another task of
        the loop began, and workers have tasks of their own.
        """
        found = [block for block in self._blocks if block.loop == loop and block.is_call == is_call]
        own = [block for block in found if block.task is task]
        if found:
            self._blocks.remove((own or found)[-1])

    def blocks_left(self) -> list[str]:
        """Returns a line for each block that is open."""
        return [
            "  an open app" + (f", opened at {block.site}" if block.site else "") for block in self._blocks
        ]

    async def close_left(self) -> None:
        """Closes the sessions of blocks that were left open, as far as their loops run."""
        for session in self.all_open():
            if session.is_on_app_loop():
                await session.close()
            elif session.loop.is_running():
                await session.run_on_app_loop(session.close())
            else:
                session.abandon()


async def _passed_on(call: Call, call_next: Callable[[Call], Awaitable[bool]]) -> bool:
    """Is a hook that does nothing. A session with hooks lets all jobs pass `around_enqueue`."""
    return await call_next(call)


def _with_virtual_clock(address_of: AddressOf) -> AddressOf:
    def address(url: str, revive: Callable[[], None] | None) -> Address:
        return dataclasses.replace(address_of(url, revive), has_virtual_clock=True)

    return address
