"""`app.schedules`: adds, lists, changes and removes schedules, and runs one now.

Awaited methods may be called on any loop; `AsyncQ` decides where they run. A change reads the schedule, and
the server accepts it only if nobody has changed the schedule meanwhile; otherwise it is made again from what
is there then.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from asyncq import config
from asyncq.broker.schedule_store import CODE, RUNTIME
from asyncq.broker.schema import answer_tags, damaged_data
from asyncq.errors import BrokerUnavailable, DecodeError
from asyncq.results.handle import AsyncResult
from asyncq.results.server_job import ServerJob
from asyncq.results.view import handle_of
from asyncq.schedules import enqueue_hooks
from asyncq.schedules.cron import in_zone
from asyncq.schedules.definition import Definition
from asyncq.schedules.entry import Entry, defined
from asyncq.schedules.schedule_progress import next_tick
from asyncq.schedules.terms import Terms
from asyncq.short_repr import brief
from asyncq.sync_bridge import blocking, on_app_loop
from asyncq.system.threads import in_daemon_thread
from asyncq.tasks.signature import Signature

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from asyncq.broker.schedule_store import Change, ScheduleStore
    from asyncq.client.application import App
    from asyncq.schedules.schedule import Schedule
    from asyncq.sync_bridge import LoopOwner
    from asyncq.tasks.job_builder import Sendable

Times: TypeAlias = "list[datetime]"
"""Some points in time, for a class in which `list` is a method."""

log: logging.Logger = logging.getLogger(__name__)

_TRIES = 50
"""So often a change is made again, because somebody else has changed the schedule meanwhile."""


class Schedules:
    """The schedules of an app.

    A schedule lies at the server, and any worker makes the job of a tick: no process of its own is needed,
    and each tick becomes one job however many workers there are.

    Example:
        ```python
        await app.schedules.add("nightly", report.s("eu"), cron="0 3 * * *", tz="Europe/Paris")
        for schedule in await app.schedules.list():
            print(schedule.name, schedule.rule, schedule.next_at)
        ```
    """

    def __init__(self, app: App) -> None:
        self._app = app

    @property
    def _loop_owner(self) -> LoopOwner:
        """Where the calls of this object run."""
        return self._app.sessions

    @property
    def _store(self) -> ScheduleStore:
        return self._app.sessions.current().broker.schedules

    @on_app_loop
    async def add(
        self,
        name: str,
        signature: Signature[Any, Any],
        *,
        every: float | timedelta | None = None,
        cron: str | None = None,
        at: float | timedelta | datetime | None = None,
        tz: str | None = None,
        catch_up: Literal["latest", "all", "none"] = "latest",
        overlap: bool = False,
        jitter: float | timedelta = 0,
        start: datetime | None = None,
        until: datetime | None = None,
        max_runs: int | None = None,
    ) -> Schedule:
        """Adds a schedule, which stays until it is removed or has ended. One of the same name is replaced:
        with the same rule its next tick stays, and a pause stays in any case. A second call changes nothing.

        Args:
            name: of the schedule: 1 to 100 of `A-Z a-z 0-9 _ . -`.
            signature: the call that each tick makes, such as `report.s("eu")`. Its options hold for each job;
                `expires` and `deadline` count from the tick.
            every: seconds between two ticks, whole and at least 1, or a timedelta.
            cron: five fields (minute, hour, day of the month, month, day of the week), or `@hourly`,
                `@daily`, `@weekly`, `@monthly`, `@yearly`.
            at: one tick: an aware datetime, or seconds from now. It is rounded up to a second.
            tz: the time zone in which `cron` is read, such as `Europe/Paris` (default: UTC).
            catch_up: what runs after a time without a worker: `latest`, the latest of the ticks that were
                missed; `all`, each of them in order, at most the latest 1,000; `none`, none of them.
            overlap: whether a tick makes a job while the job of the tick before has not ended. If not, the
                tick is left out and counted.
            jitter: each job is made up to so many seconds after its tick.
            start: an aware datetime before which it does not tick; `every` counts from it.
            until: an aware datetime after which it does not tick.
            max_runs: how many jobs it makes.

        Returns:
            The schedule.

        Raises:
            ValueError: a name, a cron text, a zone or another value does not fit, an option of the call is
                none for a schedule, or a schedule in code has the name; the message says what would fit.
            TypeError: not exactly one of `every`, `cron` and `at`, `signature` is not a single call, or its
                arguments do not fit.
            ImportError: a cron text without the extra `cron`.
            SerializationError, PayloadTooLarge: an argument cannot travel.
            QueueFull, BrokerUnavailable: as `Task.delay`.
        """
        given = {
            "every": every,
            "cron": cron,
            "at": at,
            "tz": tz,
            "catch_up": catch_up,
            "overlap": overlap,
            "jitter": jitter,
            "start": start,
            "until": until,
            "max_runs": max_runs,
        }
        _checked(name)
        if not isinstance(signature, Signature):
            raise TypeError(
                f"a schedule makes one call, such as report.s('eu'), and not {brief(signature)}; for a "
                "workflow, give it a task that starts the workflow"
            )
        session = self._app.sessions.current()
        builder = signature.task.builder
        builder.check(signature.args, signature.kwargs)
        now_ms, _ = await self._store.read([name])
        terms = await in_daemon_thread(Terms.of, given, now_ms / 1000)
        definition = Definition.of(name, terms, builder, signature.args, signature.kwargs)

        async def store(final: Definition) -> Entry:
            def change(before: Entry | None, now: int) -> tuple[Change, Entry]:
                if before is not None and before.source == CODE:
                    raise ValueError(
                        f"a schedule in code has the name {name!r}: use another name, or change the code of "
                        "the task"
                    )
                return defined(final, RUNTIME, before, now, self._app.settings.schedule_ttl)

            return await self._change(name, change)

        return (await enqueue_hooks.run(session, definition, now_ms, store)).view()

    @blocking(add)
    def add_sync(self) -> None:
        """Blocking twin of `add`."""

    @on_app_loop
    async def list(self) -> list[Schedule]:
        """Returns all schedules, in the order of their names.

        Raises:
            BrokerUnavailable: no answer within the operation timeout.
        """
        _, stored = await self._store.read(await self._store.names())
        found = []
        for one in stored:
            try:
                if one.fields:
                    found.append((await Entry.read(one)).view())
            except DecodeError as error:
                damaged_data.warn(log, "schedule", f"schedule {one.name!r} is left out of a list", error)
        return found

    @blocking(list)
    def list_sync(self) -> None:
        """Blocking twin of `list`."""

    @on_app_loop
    async def get(self, name: str) -> Schedule:
        """Returns a schedule.

        Raises:
            LookupError: there is no such schedule.
            DecodeError: it cannot be read.
            BrokerUnavailable: no answer within the operation timeout.
        """
        return (await self._entry(name))[1].view()

    @blocking(get)
    def get_sync(self) -> None:
        """Blocking twin of `get`."""

    @on_app_loop
    async def remove(self, name: str) -> None:
        """Removes a schedule that was added by a call. The jobs that it has made stay. A second call raises
        `LookupError`.

        Raises:
            LookupError: there is no such schedule.
            ValueError: it is a schedule in code, which its workers would declare again.
            BrokerUnavailable: no answer within the operation timeout.
        """
        _, (stored,) = await self._store.read([name])
        if stored.fields.get(b"s") == CODE.encode():
            raise ValueError(
                f"schedule {name!r} is declared in code, and its workers would declare it again: remove it "
                f"there, or pause it: await app.schedules.pause({name!r})"
            )
        if not await self._store.remove(name):
            raise _unknown(name)

    @blocking(remove)
    def remove_sync(self) -> None:
        """Blocking twin of `remove`."""

    @on_app_loop
    async def pause(self, name: str) -> Schedule:
        """Pauses a schedule: it makes no jobs until `resume`, also if it is replaced, or declared again. Jobs
        that it has made go on. A second call changes nothing. Returns the schedule.

        Raises:
            LookupError: there is no such schedule.
            BrokerUnavailable: no answer within the operation timeout.
        """
        await self._change(
            name, lambda before, _: (_existing(before, name).paused(), _existing(before, name))
        )
        return await self.get(name)

    @blocking(pause)
    def pause_sync(self) -> None:
        """Blocking twin of `pause`."""

    @on_app_loop
    async def resume(self, name: str) -> Schedule:
        """Lets a paused schedule go on with its next tick after now; no tick of the pause runs. Does nothing
        if it is not paused. Returns the schedule.

        Raises:
            LookupError: there is no such schedule.
            BrokerUnavailable: no answer within the operation timeout.
        """
        _, entry = await self._entry(name)
        if entry.is_paused:
            await self._change(
                name, lambda before, now: (_existing(before, name).resumed(now), _existing(before, name))
            )
        return await self.get(name)

    @blocking(resume)
    def resume_sync(self) -> None:
        """Blocking twin of `resume`."""

    @on_app_loop
    async def run_now(self, name: str) -> AsyncResult[Any]:
        """Makes a job of a schedule now, beside its ticks, also if it is paused. The job does not count
        towards `max_runs`, and no tick is left out because of it. Each call makes another job.

        Returns:
            The handle of the job.

        Raises:
            LookupError: there is no such schedule.
            QueueFull, BrokerUnavailable: as `Task.delay`.
        """
        now_ms, entry = await self._entry(name)
        session = self._app.sessions.current()
        id_ = self._app.sessions.shards.new_id(os.urandom(12).hex())
        job, message = entry.definition.job(now_ms // 1000, now_ms, id=id_, channel=session.channel)
        waiter = session.announce(job, new=True)
        await session.submit(((job, message, waiter),))
        task = cast("Sendable", self._app.task_named(job.name))
        known: ServerJob[Any] = ServerJob(job.id, self._app, task, waiter, is_ignored=job.ignore_result)
        handle: AsyncResult[Any] = handle_of(AsyncResult, known)
        return handle

    @blocking(run_now)
    def run_now_sync(self) -> None:
        """Blocking twin of `run_now`."""

    @on_app_loop
    async def preview(self, name: str, count: int = 5) -> Times:
        """Returns the next ticks of a schedule, as if it were not paused.

        Args:
            name: of the schedule.
            count: how many, at least one.

        Returns:
            Aware datetimes in the zone of the schedule. Fewer than `count` if it ends before.

        Raises:
            LookupError: there is no such schedule.
            ValueError: `count` is below 1.
            BrokerUnavailable: no answer within the operation timeout.
        """
        try:
            left = config.count(count)
        except ValueError as error:
            raise ValueError(f"count={error}") from None
        now_ms, entry = await self._entry(name)
        definition, progress = entry.definition, entry.progress
        if definition.terms.max_runs is not None:
            left = min(left, definition.terms.max_runs - entry.runs)
        progress = progress.past(max(progress.after, now_ms // 1000))
        times: Times = []
        while len(times) < left and (tick := next_tick(definition, progress)) is not None:
            times.append(in_zone(tick, definition.terms.rule.tz))
            progress = progress.past(tick)
        return times

    @blocking(preview)
    def preview_sync(self) -> None:
        """Blocking twin of `preview`."""

    async def _entry(self, name: str) -> tuple[int, Entry]:
        """Returns the time of the server's clock in ms, and a schedule. Raises as `get`."""
        now_ms, (stored,) = await self._store.read([name])
        if not stored.fields:
            raise _unknown(name)
        return now_ms, await Entry.read(stored)

    async def _change(self, name: str, change: Callable[[Entry | None, int], tuple[Change, Entry]]) -> Entry:
        """Makes a change of a schedule, again and again until nobody else has changed it meanwhile.

        Args:
            name: of the schedule.
            change: makes the change of the schedule, or of None, and of the server's time in ms.

        Returns:
            What `change` has returned beside the change.
        """
        for _ in range(_TRIES):
            now_ms, (stored,) = await self._store.read([name])
            made, entry = change(await Entry.read(stored) if stored.fields else None, now_ms)
            answer = await self._store.put(made)
            if answer.tag == answer_tags.ACCEPTED:
                return entry
        raise BrokerUnavailable(f"schedule {name!r} was changed by others {_TRIES} times in a row; try again")


def _checked(name: str) -> str:
    try:
        return config.name(name)
    except ValueError as error:
        raise ValueError(f"name={error}") from None


def _existing(entry: Entry | None, name: str) -> Entry:
    if entry is None:
        raise _unknown(name)
    return entry


def _unknown(name: str) -> LookupError:
    return LookupError(f"there is no schedule {name!r}; app.schedules.list() returns those that exist")
