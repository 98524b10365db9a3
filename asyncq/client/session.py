"""One session: an open connection of an app to the server, on one event loop. Every job comes in through it.

`send` is the way in of a single call, and `submit` that of all else: batches, workflows, replayed dead
letters. The hooks in `on_enqueue` see each job there. `announce` makes the waiter of a job, before its
outcome can come. `sessions` decides which session serves a call.

Everything here runs on the session's loop, except where a docstring says otherwise. The session's own tasks
run in an empty context: they must not keep the context variables of the code that opened the session, such as
the current job or the user of a web request.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from asyncq import logs, wire
from asyncq.broker.broker import Broker
from asyncq.broker.preflight import server_check
from asyncq.broker.schema.keys import token
from asyncq.broker.transport.server_error import ServerError, Unfit
from asyncq.client.scoped_jobs import current_scope, scope_of
from asyncq.context import current_job
from asyncq.errors import AsyncQError, BrokerNotConfigured, BrokerUnavailable
from asyncq.middleware import enqueue_chain, headers
from asyncq.middleware.outgoing_call import Call
from asyncq.states import State
from asyncq.sync_bridge import running_loop
from asyncq.system.tasks import cancel_and_wait
from asyncq.system.threads import in_daemon_thread

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from asyncq.broker.enqueue import Answer, ExistingJob
    from asyncq.broker.waiters import Listener, Waiter
    from asyncq.client.application import App
    from asyncq.embedded import EmbeddedServer
    from asyncq.middleware.enqueue_chain import EnqueueHook

    Entry = tuple[wire.Job, bytes, Waiter]
    """A job, its message, and the waiter that is notified of its outcome."""

R = TypeVar("R")

log: logging.Logger = logging.getLogger(__name__)

BACKGROUND_TIMEOUT = 2.0
"""How many seconds closing waits for background tasks."""


class Session:
    """An open connection of an app, on the loop that was running when it was made.

    Args:
        app: the app whose settings the session follows.

    Attributes:
        loop: the loop on which the session lives.
        channel: the reply channel, on which this session is notified of outcomes.
        users: how many blocks hold it open.
        opened: how many calls of `AsyncQ.open` hold it open.
        server: the embedded server that it holds, if it uses one.
        is_open: whether calls can go through it.
        on_enqueue: the hooks around each enqueue. An empty list costs one truth test.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.channel: str = app.sessions.shards[0].replies + token()
        self.users = self.opened = 0
        self.server: EmbeddedServer | None = None
        self.is_open: bool = False
        self.on_enqueue: list[EnqueueHook] = app.sessions.on_enqueue
        self._opening: asyncio.Task[None] | None = None
        self._waiting_for_open = 0
        self._background: set[asyncio.Task[Any]] = set()

    broker: Broker
    """The connections of the session. It is set when the session opens, and refuses calls once it is closed.
    It is a plain attribute and no property, like `listener`, for each enqueue reads it."""
    listener: Listener
    """The waiters of this session and its subscription."""

    # -- open and close --

    async def until_open(self) -> None:
        """Waits until the session is open. The first caller opens it, and the others wait for that.

        Raises:
            BrokerUnavailable: the server cannot be reached. A later call tries again.
            BrokerNotConfigured: there is no server to reach, and none can be started here; or, with `strict`,
                the server may lose jobs.
        """
        while not self.is_open:
            if self._opening is None or self._opening.done():
                # In an empty context: else the tasks, timers and transports that are made here would keep the
                # caller's context for as long as the session lives.
                opening = self._open()
                self._opening = self.loop.create_task(opening, context=contextvars.Context())
                self._waiting_for_open = 0
            self._waiting_for_open += 1
            opening_task = self._opening
            try:
                await asyncio.shield(opening_task)
            except BaseException as error:
                self._waiting_for_open -= 1
                if isinstance(error, asyncio.CancelledError) and not self._waiting_for_open:
                    # The last caller was cancelled: nobody would use the open session, and nobody close it.
                    await cancel_and_wait(opening_task)
                    await self.close()
                raise

    @property
    def is_open_or_opening(self) -> bool:
        """Whether the session is open or is being opened."""
        return self.is_open or (self._opening is not None and not self._opening.done())

    async def _open(self) -> None:
        url, server = await self._resolve()
        revive = None
        if server is not None and self._app.settings.url.startswith("embedded://"):
            revive = partial(_revive, server.directory)
        address = self._app.sessions.address_of(url, revive)
        broker = Broker(address, self._app.settings, self.channel)
        try:
            await broker.open()
            # An embedded server needs no check, for asyncq has configured it. That of a test keeps nothing.
            if server is None and not address.has_virtual_clock:
                await server_check.check(broker.commands)
        except BaseException as error:
            await broker.close()
            if server is not None:
                server.release()
            if isinstance(error, Unfit):
                raise BrokerNotConfigured(str(error)) from error
            if isinstance(error, ServerError):
                raise BrokerUnavailable(f"{broker.address.safe_url} refuses: {error}") from error
            raise
        self.server = server
        self.broker, self.listener = broker, broker.listener
        self.is_open = True

    async def _resolve(self) -> tuple[str, EmbeddedServer | None]:
        """Returns the URL of the server. Starts or joins an embedded server, and returns it, too."""
        url = self._app.settings.url
        if not url.startswith(("memory://", "embedded://")):
            return url, None
        if self._app.settings.replicas:
            raise BrokerNotConfigured(
                f"replicas={self._app.settings.replicas} needs a server with replicas, and the embedded one "
                "has none\nSet ASYNCQ_URL=redis://host:6379/0, or leave `replicas` out"
            )
        from asyncq import embedded

        if url.startswith("memory://"):
            # It belongs to the app and not to this session: it lives until the process ends.
            server = await in_daemon_thread(embedded.private, self._app)
        else:
            server = await in_daemon_thread(_acquire, url, self._app.made_in)
        return server.url, server

    async def close(self) -> None:
        """Closes the connections. Waits under way raise `BrokerUnavailable`. A second call does nothing."""
        was_open, self.is_open = self.is_open, False
        server, self.server = self.server, None
        self._opening = None
        if was_open:
            await self.broker.close()
            # An aborted transport closes its socket in the next turn of the loop. The caller may stop the
            # loop right after this, and then the socket would stay open.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if server is not None:
            await in_daemon_thread(server.release)

    def abandon(self) -> None:
        """Gives up a session whose loop was closed while the session was open. Its sockets are closed with
        their transports. May be called on any thread.
        """
        server, self.server = self.server, None
        self.is_open, self._opening = False, None
        if server is not None:
            server.release()

    # -- calls from other threads --

    def is_on_app_loop(self) -> bool:
        """Returns whether this thread runs the session's loop. May be called on any thread."""
        return running_loop() is self.loop

    async def run_on_app_loop(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Runs a coroutine on the session's loop. May be awaited on any loop.

        Raises:
            BrokerUnavailable: the session's loop is closed.
        """
        if self.is_on_app_loop():
            return await coroutine
        try:
            future = self.start_on_app_loop(coroutine)
        except RuntimeError:
            coroutine.close()
            raise BrokerUnavailable("the app and its event loop were closed") from None
        return await asyncio.wrap_future(future)

    def start_on_app_loop(self, coroutine: Coroutine[Any, Any, R]) -> concurrent.futures.Future[R]:
        """Starts a coroutine on the session's loop, from another thread.

        Raises:
            RuntimeError: the loop is closed.
        """
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def call(self, function: Callable[[], object]) -> None:
        """Calls a function on the session's loop, from any thread. On that loop itself the call is made at
        once. From another thread, nothing happens if the session is closed.
        """
        if self.is_on_app_loop():
            function()
        elif self.is_open:
            try:
                self.loop.call_soon_threadsafe(function)
            except RuntimeError:
                log.debug("a call did not reach a session, because the session's event loop was closed")

    # -- background work --

    def send_off(self, coroutine: Coroutine[Any, Any, object]) -> asyncio.Task[AsyncQError | None]:
        """Runs a coroutine in the background. Closing the app waits up to two seconds for it.

        Returns:
            The task. Its result is the `AsyncQError` that the coroutine raised, or None.
        """
        task = self.loop.create_task(_logged(coroutine))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def end_background(self) -> None:
        """Waits up to `BACKGROUND_TIMEOUT` for the background tasks, and cancels those that are late."""
        if not self._background:
            return
        _, late = await asyncio.wait(self._background, timeout=BACKGROUND_TIMEOUT)
        for task in late:
            task.cancel()
        if late:
            log.warning(
                "the server did not answer %d revocations within %g s; they were given up",
                len(late),
                BACKGROUND_TIMEOUT,
            )
            await asyncio.wait(late)

    # -- enqueueing --

    def announce(self, job: wire.Job, *, new: bool = False) -> Waiter:
        """Returns the waiter of a job that is about to be enqueued. Also adds the job to the scope and to the
        children of the running job, if there are any. `new` says that no other job can have the id.
        """
        waiter = self.listener.announce(job.id, ignored=job.ignore_result, new=new)
        # The variable is read here first: most calls are made outside of scopes, and each would pay for a
        # call of `scope_of`.
        if current_scope.get() is not None and (scope := scope_of(self._app)) is not None:
            scope.add(waiter)
        if not job.parents and (caller := current_job.get()) is not None:
            children = caller.children
            if len(children) <= wire.MOST_CHILDREN:  # one more than are named shows that there were more
                children.append(job.id)
        if waiter.accepted:
            return waiter  # of an existing job: its state stays, for the server may refuse this call
        waiter.queue = job.queue
        if job.expires is not None:
            waiter.expires = job.expires
        if job.wait is not None and not job.parents:
            waiter.state = State.SCHEDULED
        return waiter

    async def submit(self, entries: Sequence[Entry], *, is_whole: bool = False) -> str | None:
        """Enqueues announced jobs. Every job comes in through this method or `send`.

        Args:
            entries: each job with its message and its waiter.
            is_whole: True for a workflow: the server accepts all of its jobs in one step, or none, and
                parents come before children. False for separate calls, with one round trip for each queue.

        Returns:
            The id of the first job that was refused because another call has that id, or None. An equal call
            with the same key is not refused. In a workflow, a taken id raises `ValueError`.

        Raises:
            ValueError: an id in a workflow is that of another call. Nothing was enqueued.
            QueueFull, BrokerUnavailable: as `Task.delay`.
            Exception: what a hook raised.
        """
        if self.on_enqueue:
            return (await self.submit_all([(entries, is_whole)]))[0]
        if is_whole and not _is_single(entries):
            await self._submit_whole(entries)
            return None
        return await self._submit_many(entries)

    def send(self, job: wire.Job, message: bytes, *, new: bool) -> tuple[Waiter, Awaitable[str | None]]:
        """Announces and enqueues a single call, as `announce` and `submit`. It is the fast way: the waiter is
        made while the server works.

        Args:
            job: a call without parents.
            message: of the job.
            new: as of `announce`.

        Returns:
            The job's waiter, and what to await for the answer; `submit` says what it returns and raises.
        """
        if self.on_enqueue:
            waiter = self.announce(job, new=new)
            return waiter, self.submit(((job, message, waiter),))
        answer = self.broker.intake.enqueue(job, message)
        # No outcome can come before the next turn of the loop, so it finds this waiter.
        waiter = self.announce(job, new=new)
        return waiter, self._answered(job, waiter, answer)

    async def _answered(self, job: wire.Job, waiter: Waiter, answer: Awaitable[Answer]) -> str | None:
        """Waits for the answer to an enqueue. Returns what `submit` returns."""
        listener = self.listener
        try:
            found = await answer
        except BaseException:
            listener.gave_up(waiter)
            raise
        if found is True:
            listener.accepted(waiter)
            return None
        return None if self._take_existing(waiter, found) else job.id

    async def around_enqueue(
        self,
        jobs: Sequence[tuple[wire.Job, bytes]],
        send: Callable[[list[tuple[wire.Job, bytes]]], Awaitable[Sequence[bool | Exception]]],
    ) -> None:
        """Runs the hooks around a send of jobs.

        `submit_all` calls this. A worker calls it when it replaces a job by a workflow, for that workflow
        comes in with the claim of the replaced job and not through `submit`.

        Args:
            jobs: the jobs and their messages.
            send: gets the same jobs, with the headers that the hooks have left. Its answers are those of
                `enqueue_chain.Send`.

        Raises:
            Exception: as `enqueue_chain.run`.
            SerializationError, PayloadTooLarge: the headers cannot travel.
        """
        app = self._app
        calls = [Call(job, lambda name: app.task_named(name).arguments) for job, _ in jobs]

        async def send_with_headers() -> Sequence[bool | Exception]:
            limit = app.settings.max_payload
            return await send(
                [
                    (job, headers.put(job, message, call.headers, limit))
                    for (job, message), call in zip(jobs, calls, strict=True)
                ]
            )

        await enqueue_chain.run(self.on_enqueue, calls, send_with_headers)

    async def submit_all(self, parts: Sequence[tuple[Sequence[Entry], bool]]) -> list[str | None]:
        """Enqueues several batches and workflows inside of the hooks: no call is sent before all of them have
        passed the hooks. Each is sent as by `submit`, and all of them at the same time.

        Args:
            parts: the entries of each, and whether it is a workflow.

        Returns:
            For each part what `submit` returns.

        Raises:
            Exception: as `submit`.
        """
        all_entries = [entry for entries, _ in parts for entry in entries]
        found: list[list[bool | Exception]] = []
        was_sent = False

        async def send(jobs: list[tuple[wire.Job, bytes]]) -> list[bool | Exception]:
            nonlocal was_sent
            was_sent = True
            given = iter(jobs)
            sent = [
                self._answers_to_part([(*next(given), waiter) for _, _, waiter in entries], is_whole)
                for entries, is_whole in parts
            ]
            found.extend(await asyncio.gather(*sent))
            return [answer for answers in found for answer in answers]

        try:
            await self.around_enqueue([(job, message) for job, message, _ in all_entries], send)
        except _TakenError:
            pass  # the caller knows more of it
        finally:
            if not was_sent:
                self._take_back(all_entries)
        refused: list[str | None] = []
        for answers in found:
            errors = [answer for answer in answers if isinstance(answer, Exception)]
            taken = [error.id for error in errors if isinstance(error, _TakenError)]
            if len(errors) > len(taken):
                raise next(error for error in errors if not isinstance(error, _TakenError))
            refused.append(taken[0] if taken else None)
        return refused

    async def _answers_to_part(self, entries: Sequence[Entry], is_whole: bool) -> list[bool | Exception]:
        """Enqueues one part of `submit_all`. Returns for each job whether it is new, or why there is none."""
        try:
            if is_whole and not _is_single(entries):
                await self._submit_whole(entries)
                return [True] * len(entries)
            existing = await self._enqueue_many(entries)
        except Exception as error:  # noqa: BLE001  the hooks get it, and then the caller
            return [error] * len(entries)
        answers: list[bool | Exception] = []
        for job, _, waiter in entries:
            answer = existing.get(id(job), True)
            if answer is True:
                self.listener.accepted(waiter)
                answers.append(True)
            else:
                answers.append(False if self._take_existing(waiter, answer) else _TakenError(job.id))
        return answers

    def _take_back(self, entries: Sequence[Entry]) -> None:
        """Undoes what `announce` did for calls that a hook refused."""
        scope = scope_of(self._app)
        for job, _, waiter in entries:
            self.listener.gave_up(waiter)
            if scope is not None:
                scope.take_back(job.id)

    async def _submit_many(self, entries: Sequence[Entry]) -> str | None:
        existing = await self._enqueue_many(entries)
        refused = None
        for job, _, waiter in entries:
            answer = existing.get(id(job), True)
            if answer is True:
                self.listener.accepted(waiter)
            elif not self._take_existing(waiter, answer):
                refused = refused or job.id
        return refused

    async def _enqueue_many(self, entries: Sequence[Entry]) -> dict[int, Answer]:
        """Enqueues separate calls. Returns what was found instead, for each call that became no new job.

        The keys are those of the objects and not the ids of the jobs: two calls of one batch may have the
        same key, and so the same id.
        """
        broker = self.broker
        try:
            if len(entries) == 1:  # together with all others of this turn of the loop
                job, message, _ = entries[0]
                answer = await broker.intake.enqueue(job, message)
                return {} if answer is True else {id(job): answer}
            others = await broker.intake.enqueue_many([(job, message) for job, message, _ in entries])
        except BaseException:
            for _, _, waiter in entries:
                broker.listener.gave_up(waiter)
            raise
        return {id(job): answer for job, answer in others}

    async def _submit_whole(self, entries: Sequence[Entry]) -> None:
        broker = self.broker
        try:
            await broker.intake.submit([(job, message) for job, message, _ in entries])
        except BaseException as error:
            scope = scope_of(self._app)
            for job, _, waiter in entries:
                broker.listener.gave_up(waiter)
                # `ValueError`: an id is that of another call's job, which this call's scope must not revoke.
                if isinstance(error, ValueError) and scope is not None:
                    scope.take_back(job.id)
            raise
        for _, _, waiter in entries:
            broker.listener.accepted(waiter)

    def _take_existing(self, waiter: Waiter, answer: ExistingJob) -> bool:
        """Joins the waiter to the job that had the id before. Returns False if that job is not of an equal
        call with the same key.
        """
        # Undoes what `announce` added: another call enqueued the job, so this scope must not revoke it.
        if (scope := scope_of(self._app)) is not None:
            scope.take_back(waiter.id)
        self.listener.take_existing(waiter, answer)
        return answer is not False


def _is_single(entries: Sequence[Entry]) -> bool:
    """Returns whether these entries are one call that waits for no other."""
    return len(entries) == 1 and not entries[0][0].parents


class _TakenError(ValueError):
    """Another call's job has the id of this call."""

    def __init__(self, id_: str) -> None:
        super().__init__(f"job {id_!r} exists already and is another call")
        self.id = id_


def _acquire(url: str, made_in: str | None) -> EmbeddedServer:
    """Starts or joins the embedded server of a project; blocks, because it looks at files."""
    from asyncq import embedded

    directory = embedded.resolve(url, project_file=made_in)
    # Twice: where no embedded server may run, none is started. The warning names the server's version.
    embedded.refuse_or_warn(os.environ, directory)
    server = embedded.acquire(directory)
    _warn_once(embedded.refuse_or_warn(os.environ, directory, server.version))
    return server


def _revive(directory: Any) -> None:
    """Starts the project's server again after it has died.

    The session still holds that server, so the hold that is taken here is released at once.
    """
    from asyncq import embedded

    embedded.acquire(directory).release()


async def _logged(coroutine: Coroutine[Any, Any, object]) -> AsyncQError | None:
    """Runs a coroutine. Logs and returns its `AsyncQError`, for perhaps nobody awaits the task any more."""
    try:
        await coroutine
    except AsyncQError as error:
        log.warning("a job that nobody waits for any more could not be revoked: %s", error)
        return error
    return None


_warned: set[str] = set()


def _warn_once(text: str | None) -> None:
    if text and text not in _warned:
        _warned.add(text)
        # Its lines are for a terminal. A field of JSON has no use for breaks and indents.
        log.warning("%s", " ".join(map(str.strip, text.splitlines())) if logs.is_json() else text)
