"""`app.control`: what an operator can do with a running system. Each call is an awaited method, and has a
blocking twin that ends with `_sync`. Awaited methods may be called on any loop; `AsyncQ` decides where they
run.

What a call reads or changes it does in parts, so that no queue is too long for it: see `job_lists` and
`queue_store` in `broker`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncq import config
from asyncq.broker import order_messages as orders
from asyncq.control import job_listing, queues, stats, why, workers
from asyncq.control.dead_letters import DeadLetters
from asyncq.results.handle import AsyncResult
from asyncq.short_repr import brief
from asyncq.sync_bridge import blocking, on_app_loop

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta
    from typing import Any

    from asyncq.broker.broker import Broker
    from asyncq.client.application import App
    from asyncq.control.job_listing import JobInfo
    from asyncq.control.pages import Page
    from asyncq.control.queues import QueueInfo
    from asyncq.control.stats import Stats
    from asyncq.control.why import Why
    from asyncq.control.workers import WorkerInfo
    from asyncq.states import State
    from asyncq.sync_bridge import LoopOwner

_REVOKED_AT_ONCE = 100
"""Most jobs that are revoked side by side."""


class Control:
    """`app.control`: what an operator does with a running system.

    Every call asks the server, and raises `BrokerUnavailable` if that has not answered within the operation
    timeout. No call holds up the server, however many jobs there are. The server's user needs the rights of
    `docs/acl/operator.acl`.

    Attributes:
        dead: the dead letters.

    Example:
        ```python
        for queue in await app.control.queues():
            print(queue.name, queue.waiting, queue.running, queue.oldest_wait)
        await app.control.pause("mail")
        ```
    """

    def __init__(self, app: App) -> None:
        self.dead: DeadLetters = DeadLetters(app)
        self._app = app

    @property
    def _loop_owner(self) -> LoopOwner:
        """Where the calls of this object run."""
        return self._app.sessions

    @property
    def _broker(self) -> Broker:
        return self._app.sessions.current().broker

    # -- workers --

    @on_app_loop
    async def ping(self, timeout: float | timedelta = 1.0) -> dict[str, float]:
        """Asks every worker for a sign of life, and returns how long each took to give it.

        A worker answers from its event loop, so one whose loop is blocked by a task is late.

        Args:
            timeout: how long to wait for answers, in seconds or as a timedelta. A worker that has not
                answered by then is left out.

        Returns:
            Seconds by the name of the worker. Where several workers have one name, each is there under its
            session id: the name, and a token.

        Example:
            ```python
            answers = await app.control.ping()
            print(f"{len(answers)} workers, the slowest took {max(answers.values(), default=0):.3f} s")
            ```
        """
        return await workers.ping(self._broker, config.duration("timeout", timeout))

    @blocking(ping)
    def ping_sync(self) -> None:
        """Blocking twin of `ping`."""

    @on_app_loop
    async def workers(self) -> list[WorkerInfo]:
        """Returns the workers, by their names. The child processes in which a worker runs last tries are
        there, too.

        The figures of a worker are those that it gave when it was last seen, at most a third of a lease ago
        (5 s by default).
        """
        return [workers.info_of(worker) for worker in await self._broker.workers.all()]

    @blocking(workers)
    def workers_sync(self) -> None:
        """Blocking twin of `workers`."""

    @on_app_loop
    async def quiet(self, worker: str, *, on: bool = True) -> None:
        """Makes a worker take no more jobs. What it runs goes on, and it stays registered. A second call
        changes nothing.

        The worker stays quiet until it is restarted, or until a call with `on=False`.

        Args:
            worker: its name; all workers of that name.
            on: False makes it take jobs again.

        Raises:
            LookupError: there is no such worker.
            TimeoutError: it has not answered within 5 s. The order may have arrived all the same.
        """
        await workers.order(self._broker, worker, orders.QUIET if on else orders.GO_ON)

    @blocking(quiet)
    def quiet_sync(self) -> None:
        """Blocking twin of `quiet`."""

    @on_app_loop
    async def stop(self, worker: str) -> None:
        """Makes a worker stop, as its first SIGTERM does: it takes no more jobs, those that run may end
        within its grace, and it hands back the others. A second call changes nothing.

        Returns when the worker has taken the order, and not when it has ended. A worker process of `asyncq
        worker --workers N` is replaced by a new one: to stop all of them for good, stop their supervisor.

        Args:
            worker: its name; all workers of that name.

        Raises:
            LookupError: there is no such worker.
            TimeoutError: it has not answered within 5 s. The order may have arrived all the same.
        """
        await workers.order(self._broker, worker, orders.STOP)

    @blocking(stop)
    def stop_sync(self) -> None:
        """Blocking twin of `stop`."""

    @on_app_loop
    async def stacks(self, worker: str) -> str:
        """Returns what each job of a worker does now: its stack, from the body of the task to where it waits,
        or to the line that its thread executes.

        Args:
            worker: its name; all workers of that name.

        Raises:
            LookupError: there is no such worker.
            TimeoutError: it has not answered within 5 s. A task may block its event loop; the log of the
                worker names that task (`stall_warning`).
        """
        answers = await workers.order(self._broker, worker, orders.STACKS)
        return "\n".join(text for _, text in answers)

    @blocking(stacks)
    def stacks_sync(self) -> None:
        """Blocking twin of `stacks`."""

    # -- queues --

    @on_app_loop
    async def queues(self) -> list[QueueInfo]:
        """Returns the queues, by their names: all that were ever served, paused, or enqueued to."""
        return await queues.infos(self._broker)

    @blocking(queues)
    def queues_sync(self) -> None:
        """Blocking twin of `queues`."""

    @on_app_loop
    async def pause(self, queue: str) -> None:
        """Pauses a queue: no worker takes jobs of it any more. What runs goes on, and jobs may be enqueued.

        Returns when the workers of the queue have confirmed it, and after a second in any case: a worker that
        is away learns of the pause when it comes back.

        The queue stays paused until `resume`, whatever is restarted meanwhile. A second call changes nothing.
        A queue may be paused before it is used.

        Raises:
            ValueError: that cannot be the name of a queue.
        """
        await queues.pause(self._broker, config.name(queue))

    @blocking(pause)
    def pause_sync(self) -> None:
        """Blocking twin of `pause`."""

    @on_app_loop
    async def resume(self, queue: str) -> None:
        """Ends the pause of a queue: within a second, workers take jobs of it again. Does nothing for a queue
        that is not paused.

        Raises:
            ValueError: that cannot be the name of a queue.
        """
        await self._broker.queues.set_paused(config.name(queue), paused=False)

    @blocking(resume)
    def resume_sync(self) -> None:
        """Blocking twin of `resume`."""

    @on_app_loop
    async def purge(self, queue: str, older_than: float | timedelta | None = None) -> int:
        """Ends the jobs that wait in a queue: they end as `REVOKED`, and whoever waits for them gets
        `TaskRevoked` at once. In a workflow, the jobs that wait for them end, too.

        What workers have goes on. Jobs that are not in the queue yet stay: those that wait for their time,
        for other jobs, or for a limit of their task; and so do jobs that are enqueued while this runs. It
        works in batches of 500, and other clients are served between two of them. If it is cancelled or fails
        on the way, the jobs of the batches before have ended; call it again.

        Args:
            queue: the queue, with all of its levels of priority.
            older_than: only jobs that have been in the queue for so long, in seconds or as a timedelta
                (default: all).

        Returns:
            How many jobs have ended by this.

        Raises:
            ValueError: that cannot be the name of a queue, or a duration.

        Example:
            ```python
            print(await app.control.purge("mail", older_than=timedelta(days=1)), "jobs will never run")
            ```
        """
        age = 0.0 if older_than is None else config.duration("older_than", older_than)
        return await queues.purge(self._broker, config.name(queue), age)

    @blocking(purge)
    def purge_sync(self) -> None:
        """Blocking twin of `purge`."""

    @on_app_loop
    async def stats(self) -> Stats:
        """Returns how many jobs are in no queue now: they wait for their time, for their next try, for other
        jobs, or are dead letters. Where there are very many, some figures are estimates, see `Stats.exact`.
        """
        return await stats.stats(self._broker)

    @blocking(stats)
    def stats_sync(self) -> None:
        """Blocking twin of `stats`."""

    # -- jobs --

    @on_app_loop
    async def active(self, worker: str | None = None) -> list[JobInfo]:
        """Returns the jobs that workers have now, also those that have been fetched and begin in a moment.

        Args:
            worker: only those of this worker (default: of all).

        Raises:
            LookupError: there is no such worker.
        """
        found = None if worker is None else await workers.named(self._broker, worker)
        return await job_listing.active(self._broker, found)

    @blocking(active)
    def active_sync(self) -> None:
        """Blocking twin of `active`."""

    @on_app_loop
    async def jobs(
        self,
        state: State | str | None = None,
        queue: str | None = None,
        task: str | None = None,
        since: float | timedelta | datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[JobInfo]:
        """Returns a page of the jobs that fit all filters: those that run, then those that wait in queues,
        then those that wait for their time, then those that wait for other jobs, and then those that have
        ended, the newest of each state first.

        Of ended jobs, the newest 10,000 of each state are known (setting `history`), whether or not their
        results have expired. All failures and revocations are among them, and up to a hundred successes a
        second of each worker. A job is among them half a second after its end.

        A call looks at some ten thousand jobs. If it has not found enough by then, the page is short or empty
        and has a cursor with which the next call goes on. A job that moves meanwhile may be there twice, or
        not at all.

        Args:
            state: `PENDING`, `SCHEDULED`, `STARTED`, `RETRY`, `SUCCESS`, `FAILURE` or `REVOKED`.
            queue: the name of a queue.
            task: the name of a task.
            since: only jobs that were enqueued so many seconds ago or later, or since an aware datetime.
            limit: how many jobs a page has at most, 1 to 1,000.
            cursor: of the page before, to go on. Use the same filters.

        Raises:
            ValueError: one of these makes no sense.

        Example:
            ```python
            page = await app.control.jobs(state="PENDING", queue="mail", since=3600)
            ids = [job.id for job in page]
            ```
        """
        return await job_listing.page_of(
            self._broker, job_listing.filter_of(state, queue, task, since), limit, cursor
        )

    @blocking(jobs)
    def jobs_sync(self) -> None:
        """Blocking twin of `jobs`."""

    @on_app_loop
    async def revoke(
        self, ids: Iterable[str], *, terminate: bool = False, reason: str | None = None
    ) -> dict[str, State | str]:
        """Ends jobs, as `AsyncResult.revoke` does one. A second call changes nothing.

        Args:
            ids: the ids of the jobs.
            terminate: also end jobs that run.
            reason: a text that `TaskRevoked` shows.

        Returns:
            The state of each job after that, as far as it is known; `UNKNOWN` for an unknown job.

        Raises:
            TypeError: `ids` is one id and not a list.
        """
        if isinstance(ids, str):
            raise TypeError(f"revoke({brief(ids)}) takes a list of ids: write revoke([{brief(ids)}])")
        every = list(dict.fromkeys(ids))
        states: dict[str, State | str] = {}
        for first in range(0, len(every), _REVOKED_AT_ONCE):
            handles: list[AsyncResult[Any]] = [
                AsyncResult(id_, app=self._app) for id_ in every[first : first + _REVOKED_AT_ONCE]
            ]
            found = await asyncio.gather(
                *(handle.revoke(terminate=terminate, reason=reason) for handle in handles)
            )
            states.update((handle.id, state) for handle, state in zip(handles, found, strict=True))
        return states

    @blocking(revoke)
    def revoke_sync(self) -> None:
        """Blocking twin of `revoke`."""

    @on_app_loop
    async def why(self, id: str) -> Why:
        """Returns what a job waits for: its time, other jobs, a permit of its task and who has it, a pause, a
        worker that serves its queue or knows its task, its turn.

        Args:
            id: the id of the job.

        Raises:
            ResultNotFound: there is no such job (any more).

        Example:
            ```python
            why = await app.control.why(result.id)
            print(why.state, why)  # PENDING queue 'mail' is paused
            assert why.reasons[0].kind == "paused"
            ```
        """
        return await why.why(self._broker, id)

    @blocking(why)
    def why_sync(self) -> None:
        """Blocking twin of `why`."""
