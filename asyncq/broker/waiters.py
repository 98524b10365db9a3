"""Notifies everybody in a session who waits for the outcome of a job: any number of waiters over one
subscription, and no wake-up is lost. Runs on the session's loop.

Each session has a reply channel of its own and puts its name into the jobs that it enqueues. Whoever ends a
job publishes the outcome on the channels that the record names. A notification is a hint that may be lost;
the record is the truth. So:

1. *Subscribe, wait for the confirmation, then fetch the status* from the record. The other way round, the end
   of a job between the two steps is missed for ever.
2. Each confirmation begins a new **epoch**, see `Subscription`. If a waiter knows that the record of its live
   job names the channel since this epoch, it needs no status: the notification has yet to come, and on this
   very connection. Any other waiter fetches the status first.
3. After each reconnection the status of every waiter is fetched: what was published meanwhile is gone.
   Without this, the wait after a `CLIENT KILL TYPE pubsub` hung in 3 runs of 3. First come the jobs that were
   accepted meanwhile.
4. Every few seconds, the status of the waiters that have waited for long is fetched again: they poll. This
   bounds whatever else may go wrong with pub/sub.

These requests are gathered: the status of up to 500 jobs is fetched by one call.

Dropping a handle only drops an entry from a weak dictionary: no command is sent, nothing is unsubscribed.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from asyncq import wire
from asyncq.broker.schema import damaged_data
from asyncq.broker.schema.records import Flags
from asyncq.broker.subscription import Subscription
from asyncq.broker.transport.pipe import PipeBroken
from asyncq.broker.transport.reconnect import pause
from asyncq.broker.transport.server_error import ServerError
from asyncq.config import shown
from asyncq.errors import AsyncQError, BrokerUnavailable, DecodeError
from asyncq.states import State
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from asyncq.broker.commands import Commands
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.signing.seal import Seal

log: logging.Logger = logging.getLogger(__name__)

POLL = 5.0
"""Within so many seconds, a waiter without news polls. A round comes every quarter of this time, give or take
a fifth, and takes the waiters that have waited for seven tenths of it."""
HINT_AFTER = 2.0
"""Seconds of waiting after which the queue is checked for a worker."""
SPREAD = 0.5
"""Within so many seconds after a reconnection, the status of all waiters is fetched: after a restart of the
server, every client does this at the same time."""
BATCH = 500
"""Most jobs whose status one call fetches."""
_NOTHING_SEEN = wire.JobSnapshot(flags="", queue="")
"""The snapshot of a job whose status was not fetched yet."""


class Waiter:
    """What one session knows of one job. All its handles in the session share it.

    Attributes:
        id: the job's id.
        ended: the outcome, once it is known. Only `forgotten` takes it back.
        gone: True if the server knows no result under this id (any more).
        accepted: False while the enqueue of this job is under way: the server may not have the job yet.
        epoch: the epoch in which the job's record is known to name our channel; 0 if none.
        expires: when the job expires unless it is started, in ms since 1970; None if not known.
        state, queue: as last seen.
        snapshot: what else was last seen of the live job; its flags are empty before the status was fetched.
        call: the job's message and the values of its parents, if somebody has asked for them.
        listener: the listener that keeps this waiter.
        kin: the waiters of the same job in the sessions through which a handle has gone, with this one; None
            if there are no others. All of them have the same list.
        futures: of the waits in progress; None if there is none.
        callbacks: to be called at the end of the job; None if there is none.
        since: the loop's time since when somebody waits without news.
    """

    __slots__ = (
        "__weakref__",
        "accepted",
        "call",
        "callbacks",
        "ended",
        "epoch",
        "expires",
        "futures",
        "gone",
        "id",
        "kin",
        "listener",
        "queue",
        "since",
        "snapshot",
        "state",
    )

    def __init__(self, id: str, listener: Listener, *, epoch: int = 0, accepted: bool = True) -> None:
        self.id: str = id
        self.listener: Listener = listener
        self.kin: list[Waiter] | None = None
        self.state: State | str = State.UNKNOWN
        self.queue: str | None = None
        self.snapshot: wire.JobSnapshot = _NOTHING_SEEN
        self.call: tuple[wire.Job, bytes] | None = None
        self.ended: wire.Ended | None = None
        self.gone: bool = False
        self.accepted: bool = accepted
        self.epoch: int = epoch
        self.expires: int | None = None
        self.futures: list[asyncio.Future[None]] | None = None
        self.callbacks: list[Callable[[], None]] | None = None
        self.since: float = 0.0

    def latest(self) -> Waiter:
        """Returns the waiter that knows most, of the waiters of this job in all sessions. On any thread."""
        if self.kin is None or self.ended is not None:
            return self
        return max(self.kin, key=_knowledge)

    def take_report(self, report: wire.Report) -> None:
        """Takes in a report of the running job. Does nothing if the job has ended."""
        if self.ended is None:
            self.snapshot = replace(self.snapshot, report=report)
            self.state = report.state


def _knowledge(waiter: Waiter) -> int:
    """Returns how much a waiter knows of its job: 3 the outcome, 2 that it has started or failed, 1 that it
    waits for its start, 0 nothing.
    """
    if waiter.ended is not None:
        return 3
    if waiter.state is State.UNKNOWN:
        return 0
    return 1 if waiter.state in {State.PENDING, State.SCHEDULED} else 2


class Waiters:
    """The waiters of a session by id, for as long as somebody holds them.

    A `WeakValueDictionary` would do, but takes more than twice as long to insert a waiter and to drop it.
    """

    def __init__(self) -> None:
        self._refs: dict[str, _Ref] = {}
        self._on_drop = self._drop

    def get(self, id: str) -> Waiter | None:
        """Returns the waiter of a job, or None."""
        ref = self._refs.get(id)
        return None if ref is None else ref()

    def put(self, waiter: Waiter) -> None:
        """Adds a waiter. Replaces any other one of this id."""
        ref = self._refs[waiter.id] = _Ref(waiter, self._on_drop)
        ref.id = waiter.id

    def _drop(self, ref: _Ref) -> None:
        # Runs on whatever thread dropped the last reference. Another waiter may have the id by now.
        if self._refs.get(ref.id) is ref:
            del self._refs[ref.id]

    def __len__(self) -> int:
        return len(self._refs)

    def __iter__(self) -> Iterator[Waiter]:
        return iter([waiter for ref in list(self._refs.values()) if (waiter := ref()) is not None])


class _Ref(weakref.ref[Waiter]):
    __slots__ = ("id",)
    id: str


class Listener:
    """Keeps the waiters of a session, and settles them: by notifications, and by fetching their status.

    Args:
        commands: of the session.
        fetch_status: returns the status of jobs, and adds the channel given to the waiters in their records.
        expire: ends a job whose time has passed.
        hint: warns the user if no worker serves a queue.

    Attributes:
        channel: the reply channel of the session.
        seal: of the session.
        subscription: to the reply channel and others.
        is_closed: whether the session is closed: no outcome arrives any more.
    """

    def __init__(
        self,
        commands: Commands,
        fetch_status: Callable[[list[str], str], Awaitable[list[wire.Ended | str | None]]],
        expire: Callable[[str], Awaitable[object]],
        hint: Callable[[str], Awaitable[None]],
    ) -> None:
        self.channel: str = commands.channel
        self.seal: Seal | None = commands.seal
        self.subscription: Subscription = Subscription(commands, self._on_outcomes)
        self.subscription.renewed.add(self._renewed)
        self._fetch_status = fetch_status
        self._expire = expire
        self._hint = hint
        self._hinted: dict[str, float] = {}
        self._loop = asyncio.get_running_loop()
        self._waiters = Waiters()
        self._kept: set[Waiter] = set()
        self._accepted_unsubscribed: weakref.WeakSet[Waiter] = weakref.WeakSet()
        """Of the jobs that were accepted while there was no subscription."""
        self._missed: set[int] = set()  # the shards whose waiters are about to be asked for
        self._questions = _Questions(commands)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.is_closed: bool = False

    def start(self) -> None:
        """Starts to keep up the subscription and to poll. Call it once, after the first confirmation."""
        self.subscription.start()
        self._spawn(self._poll())

    async def close(self) -> None:
        """Ends the subscription. Waits in progress get `BrokerUnavailable`. A second call does nothing."""
        self.is_closed = True
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.subscription.close()
        for waiter in self._waiters:
            for future in waiter.futures or ():
                if not future.done():
                    future.set_exception(BrokerUnavailable("the app was closed during the wait for a result"))
        self._kept.clear()

    # -- waiting --

    def announce(self, id: str, *, ignored: bool = False, new: bool = False) -> Waiter:
        """Returns the waiter of a job that is about to be enqueued with our channel in it.

        The waiter must exist before the turn of the loop ends in which the enqueue is sent: the outcome comes
        over another connection, and may arrive before the answer to the enqueue.

        Args:
            id: of the job.
            ignored: whether its result is ignored: then no notification comes.
            new: whether the id was just made, so that no other waiter can have it.
        """
        known = None if new else self._waiters.get(id)
        if known is not None and known.ended is None and not known.gone:
            # A key, or an id of the user's own, was used twice. Whichever call the server accepts, there is
            # one outcome under this id.
            return known
        waiter = Waiter(id, self, epoch=0 if ignored else self.subscription.epoch, accepted=False)
        waiter.state = State.PENDING
        self._waiters.put(waiter)
        return waiter

    def waiter(self, id: str) -> Waiter:
        """Returns the waiter of a job of which only the id is known."""
        waiter = self._waiters.get(id)
        if waiter is None:
            waiter = Waiter(id, self)
            self._waiters.put(waiter)
        return waiter

    def follow(self, waiter: Waiter) -> Waiter:
        """Returns the waiter in this session of a job that has a waiter in another session. It begins with
        what the other one knows. From then on, `latest` of either finds what one of them is notified of.
        """
        if waiter.listener.is_closed and self._waiters.get(waiter.id) is None:
            # No notification reaches a closed session, so the waiter itself moves to this one.
            self._waiters.put(waiter)
            waiter.listener = self
            waiter.epoch = 0
            waiter.accepted = True
            return waiter
        mine = self.waiter(waiter.id)
        latest = waiter.latest()
        if latest.ended is not None and mine.ended is None:
            self._resolve(mine, latest.ended)
        elif _knowledge(latest) > _knowledge(mine):
            for name in ("state", "queue", "snapshot", "expires"):
                setattr(mine, name, getattr(latest, name))
        _join_kin(waiter, mine)
        return mine

    async def wait(self, waiter: Waiter, timeout: float | None) -> None:
        """Waits until the job has ended, or turned out to be unknown, or the time is over. The waiter tells
        which: `ended`, `gone`, or neither.

        The timer is local: it fires whatever the server does. Cancelling one wait disturbs no other. The wait
        is a single coroutine, for there may be ten thousand of them.

        Args:
            waiter: of the job.
            timeout: in seconds; None for no limit.

        Raises:
            BrokerUnavailable: the app was closed.
        """
        end = None if timeout is None else self._loop.time() + timeout
        if waiter.gone:
            # `gone` is from an earlier status. There may be a new job under this key or id by now.
            waiter.gone = False
            waiter.epoch = 0
        while waiter.ended is None and not waiter.gone:
            left = None if end is None else end - self._loop.time()
            if left is not None and left <= 0:
                return
            if not self._in_touch(waiter):
                self._ask(waiter)
            future = self._join(waiter)
            timers = self._timers(waiter, future, left)
            try:
                await future
            finally:
                for timer in timers:
                    timer.cancel()
                self._part(waiter, future)

    def attend(
        self, waiter: Waiter, on_change: Callable[[asyncio.Future[None]], object]
    ) -> Callable[[], None]:
        """Waits as `wait` does, but by a callback: somebody who waits for many jobs needs no coroutine for
        each.

        Args:
            waiter: of a job that is not known to have ended.
            on_change: called once, with a future that is done, when something has changed. The waiter tells
                what. If the job has not ended, attend again. If the future has an exception, the app was
                closed.

        Returns:
            A function that ends the wait. Call it also after `on_change`.
        """
        if not self._in_touch(waiter):
            self._ask(waiter)
        future = self._join(waiter)
        timers = self._timers(waiter, future, None)
        future.add_done_callback(on_change)

        def leave() -> None:
            for timer in timers:
                timer.cancel()
            self._part(waiter, future)

        return leave

    def _join(self, waiter: Waiter) -> asyncio.Future[None]:
        """Adds a future to a waiter, which is done at the next change, and keeps the waiter alive."""
        future = self._loop.create_future()
        if waiter.futures is None:
            waiter.futures = []
            waiter.since = self._loop.time()
            # Asyncio holds tasks weakly. If nobody else holds the task that waits here, then task, handle,
            # waiter and future are a cycle, and the garbage collector would free it in the middle of the
            # wait.
            self._kept.add(waiter)
        waiter.futures.append(future)
        return future

    def _part(self, waiter: Waiter, future: asyncio.Future[None]) -> None:
        """Removes the future of a wait that has ended."""
        assert waiter.futures is not None
        waiter.futures.remove(future)
        if not waiter.futures:
            waiter.futures = None
            if waiter.callbacks is None:
                self._kept.discard(waiter)

    def _timers(
        self, waiter: Waiter, future: asyncio.Future[None], timeout: float | None
    ) -> tuple[asyncio.TimerHandle, ...]:
        """Starts the timers of one wait: for its timeout, and for the expiry of the job."""
        if timeout is None and waiter.expires is None:
            return ()
        timers = []
        if timeout is not None:
            timers.append(self._loop.call_later(timeout, _resolve_future, future))
        if waiter.expires is not None:
            timers.append(self._loop.call_later(_until(waiter.expires), self._expire_now, waiter))
        return tuple(timers)

    def when_ended(self, waiter: Waiter, callback: Callable[[], None]) -> None:
        """Has `callback` called on this loop when the job has ended or turned out to be unknown; in the next
        turn of the loop if that is known already. The waiter is kept alive until then.
        """
        if waiter.ended is not None or waiter.gone:
            self._loop.call_soon(callback)
            return
        if waiter.callbacks is None:
            waiter.callbacks = []
        waiter.callbacks.append(callback)
        waiter.since = waiter.since or self._loop.time()
        self._kept.add(waiter)
        if waiter.expires is not None:
            self._loop.call_later(
                _until(waiter.expires), self._expire_now, waiter, context=contextvars.Context()
            )
        if not self._in_touch(waiter):
            self._ask(waiter)

    def learn(self, waiter: Waiter, answer: wire.Ended | str | None) -> None:
        """Takes in a fetched status: an outcome, the flags of a live job, or None for an unknown job."""
        if isinstance(answer, wire.Ended):
            self._resolve(waiter, answer)
        elif answer is None:
            known = waiter.latest().ended
            if known is None:
                self.forgotten(waiter)
            else:  # the result expired at the server, or was forgotten elsewhere: this process keeps it
                self._resolve(waiter, known)
        else:
            text, _, expires = answer.partition(" ")
            flags = Flags(text)
            waiter.gone = False
            if waiter.snapshot.flags != text:  # of most waiters, the next poll says the same
                waiter.snapshot = replace(waiter.snapshot, flags=text)
            if waiter.state is State.UNKNOWN:
                waiter.state = wire.STATE_OF[flags[0]]
            if flags.is_ignored:
                # The job may be live, but there will never be a result.
                self._wake(waiter, gone=True)
            elif expires and waiter.expires is None:
                self._learn_expiry(waiter, int(expires))

    def _learn_expiry(self, waiter: Waiter, expires: int) -> None:
        """Notes when the job expires, and has timers set for that time."""
        waiter.expires = expires
        for future in waiter.futures or ():
            _resolve_future(future)  # `wait` goes round its loop, and sets a timer for the expiry
        if waiter.callbacks:
            self._loop.call_later(_until(expires), self._expire_now, waiter, context=contextvars.Context())

    def forgotten(self, waiter: Waiter) -> None:
        """Takes in that the server has no result under this id (any more), in all sessions that know it."""
        for each in waiter.kin or (waiter,):
            each.ended = None
            each.snapshot = _NOTHING_SEEN
            each.state = State.UNKNOWN
            each.epoch = 0  # no notification will come: the next wait must fetch the status first
            each.expires = None  # this was the old job's; the id may get another job
        self._wake(waiter, gone=True)

    def take_status(self, waiter: Waiter, answer: wire.Ended | wire.JobSnapshot | None) -> None:
        """Takes in the answer of `Broker.state`, which tells more of a live job than `fetch_status`."""
        if not isinstance(answer, wire.JobSnapshot):
            self.learn(waiter, answer)
        elif waiter.ended is None:  # else the notification was faster than this answer
            waiter.gone = False
            waiter.queue = answer.queue
            waiter.snapshot = answer
            waiter.state = answer.state

    def accepted(self, waiter: Waiter) -> None:
        """Takes in that the server has accepted this job."""
        waiter.accepted = True
        waiter.gone = False  # `gone` was about an earlier job of this id, whose result was forgotten
        if not self.subscription.epoch:
            self._accepted_unsubscribed.add(waiter)
        if waiter.ended is None and not self._in_touch(waiter) and waiter.futures:
            self._ask(waiter)

    def gave_up(self, waiter: Waiter) -> None:
        """Takes in that the enqueue of this job was refused, cancelled, or not answered in time. No answer to
        the enqueue will follow, and only the record tells what became of the job. So its status is fetched
        from now on.
        """
        if not waiter.accepted:
            waiter.accepted = True
            waiter.epoch = 0
            if waiter.futures:
                self._ask(waiter)

    def take_existing(self, waiter: Waiter, answer: wire.Ended | str | Literal[False] | None) -> None:
        """Takes in which existing job the enqueue found under this id. False: it is the job of another call.
        Otherwise it is the job of an equal call, and `answer` is its status. The server has added our channel
        to that job's waiters in the same step, so the epoch that `announce` set is right.
        """
        waiter.expires = None  # this was the expiry of the new call, which did not become a job
        if answer is False:
            waiter.accepted = True
            waiter.epoch = 0
            return
        if isinstance(answer, str) and waiter.state in {State.PENDING, State.SCHEDULED}:
            waiter.state = wire.STATE_OF[answer[0]]
        self.learn(waiter, answer)
        self.accepted(waiter)

    def _expire_now(self, waiter: Waiter) -> None:
        """Has the job expired at the server: its time has passed, and there may be no worker to notice."""
        if waiter.ended is not None or waiter.gone:
            return
        self._spawn(self._expire_and_ask(waiter))

    async def _expire_and_ask(self, waiter: Waiter) -> None:
        """Has the job expired at the server, and fetches its outcome."""
        try:
            await self._expire(waiter.id)
        except (AsyncQError, PipeBroken, ServerError) as error:
            log.debug("job %r could not be expired (%s); a worker will expire it", waiter.id, error)
        self._ask(waiter)

    def _in_touch(self, waiter: Waiter) -> bool:
        """Returns whether a notification is sure to come: the record names our channel since this epoch."""
        epoch = self.subscription.epoch
        return epoch != 0 and waiter.epoch == epoch

    # -- outcomes --

    def _on_outcomes(self, data: bytes) -> None:
        """Takes in a message on the reply channel: one or more outcomes."""
        try:
            for id_, letter, outcome in wire.split_notification(data):
                waiter = self._waiters.get(id_)
                if waiter is None:
                    continue
                if outcome is None:  # the outcome is not in the notification: read the record
                    waiter.accepted = True
                    self._ask(waiter)
                elif self.seal is not None:
                    self._open_and_resolve(self.seal, waiter, letter, outcome)
                else:
                    self._resolve(waiter, wire.decode_ended(letter, outcome))
        except (DecodeError, UnicodeDecodeError) as error:
            # Any client of the server may publish rubbish here. The waiters poll the records, so no wait
            # depends on this message.
            damaged_data.warn(
                log, "notification", f"a notification on {self.channel} could not be read", error
            )

    def _open_and_resolve(self, seal: Seal, waiter: Waiter, letter: str, outcome: bytes) -> None:
        """Takes in an outcome from a notification, if it is signed. If it is not, the record decides: anybody
        may publish, and the job may be running.
        """
        try:
            ended = wire.decode_ended(letter, seal.open_outcome(waiter.id, letter, outcome))
        except wire.NotSigned as error:
            damaged_data.warn(log, "notification", f"a notification on {self.channel} is ignored", error)
            self._ask(waiter)
        else:
            self._resolve(waiter, ended)

    def _resolve(self, waiter: Waiter, ended: wire.Ended) -> None:
        """Stores the outcome of a job, if there is none yet, and ends the waits for it."""
        if waiter.ended is None:
            waiter.ended = ended
            waiter.gone = False
            waiter.state = ended.state
        self._wake(waiter)

    def _wake(self, waiter: Waiter, *, gone: bool = False) -> None:
        """Ends the waits for a job, and has its callbacks called in the next turn of the loop."""
        waiter.gone = waiter.gone or gone
        for future in waiter.futures or ():
            if not future.done():
                future.set_result(None)
        callbacks, waiter.callbacks = waiter.callbacks, None
        self._kept.discard(waiter)
        for callback in callbacks or ():
            self._loop.call_soon(callback)

    # -- looking --

    async def fetch_all(self, waiters: Sequence[Waiter], timeout: float | None = None) -> None:
        """Looks once at many jobs, 500 in each command. Does not add the channel to their waiters.

        Raises:
            BrokerUnavailable: one of the batches was not answered within `timeout` seconds (None: the
                operation timeout).
        """
        for first in range(0, len(waiters), BATCH):
            batch = waiters[first : first + BATCH]
            try:
                async with asyncio.timeout(timeout):
                    answers = await self._fetch_status([waiter.id for waiter in batch], "")
            except TimeoutError as error:
                raise BrokerUnavailable(f"the server did not answer within {shown(timeout)}") from error
            for waiter, answer in zip(batch, answers, strict=True):
                if waiter.ended is None:  # else a notification was faster than this answer
                    self.learn(waiter, answer)

    def _ask(self, waiter: Waiter) -> None:
        """Has the status of the waiter fetched with the next batch."""
        question = self._questions.of(waiter.id)
        question.asked[waiter.id] = waiter
        if question.looking is None or question.looking.done():
            question.looking = self._spawn(self._answer_all(question.asked))

    async def _answer_all(self, asked: dict[str, Waiter]) -> None:
        """Fetches the status of all waiters that were asked for, in batches, and again after an error."""
        attempt = 0
        while asked:
            batch = [asked.pop(id_) for id_ in list(asked)[:BATCH]]
            batch = [waiter for waiter in batch if waiter.accepted and waiter.ended is None]
            # Read before the status is fetched. If the subscription is lost and renewed meanwhile, this epoch
            # is out of date, and the status is fetched again.
            epoch = self.subscription.epoch
            if not batch:
                continue
            try:
                answers = await self._fetch_status([waiter.id for waiter in batch], self.channel)
            except Exception as error:  # noqa: BLE001  all waiters of the session depend on this task
                # The waits go on: each has a timeout of its own, and a later try may succeed.
                attempt += 1
                log.debug("the status of %d jobs could not be fetched (%s); trying again", len(batch), error)
                for waiter in batch:
                    asked.setdefault(waiter.id, waiter)
                await asyncio.sleep(pause(attempt))
                continue
            attempt = 0
            for waiter, answer in zip(batch, answers, strict=True):
                if isinstance(answer, str):
                    waiter.epoch = epoch
                self.learn(waiter, answer)

    def _awaited(self) -> Iterable[Waiter]:
        return [waiter for waiter in self._waiters if waiter.futures or waiter.callbacks]

    async def _poll(self) -> None:
        """Polls, for ever: has the status of waiters fetched that have waited for long, and gives hints."""
        while True:
            await asyncio.sleep(POLL * random.uniform(0.8, 1.2) / 4)
            for queue in self._queues_to_check():
                await self._hint_once(queue)

    def _queues_to_check(self) -> set[str]:
        """Has the status of all waiters fetched that have waited for long. Returns the queues of those that
        have waited for a while without news.
        """
        now = self._loop.time()
        queues = set()
        for waiter in self._awaited():
            waited = now - waiter.since
            if waited >= HINT_AFTER and waiter.queue is not None:
                queues.add(waiter.queue)
            if waited >= POLL * 0.7:
                waiter.since = now
                self._ask(waiter)
        return queues

    async def _hint_once(self, queue: str) -> None:
        """Checks whether a worker serves the queue, at most once a minute: the commonest reason for a long
        wait is that there is none.
        """
        now = self._loop.time()
        if now - self._hinted.get(queue, float("-inf")) < 60:
            return
        self._hinted[queue] = now
        try:
            await self._hint(queue)
        except Exception as error:  # noqa: BLE001  a failed hint must not end the task that polls
            log.debug("the workers of queue %r could not be listed: %s", queue, error)

    def _renewed(self, shards: Sequence[Keys]) -> None:
        """Has the status of every job in these shards fetched: their subscription was lost, and so was what
        was published meanwhile.

        At once for the jobs that were accepted meanwhile: commands may be answered before the subscription is
        renewed, so these jobs may have ended. That is fewer requests than those that enqueued these jobs.
        """
        numbers = {keys.shard for keys in shards}
        for waiter in list(self._accepted_unsubscribed):
            if self._questions.shard_of(waiter.id) in numbers:
                self._accepted_unsubscribed.discard(waiter)
                if waiter.ended is None and not waiter.gone:
                    self._ask(waiter)
        if not self._missed:  # on a Cluster, several shards are renewed one after the other
            self._spawn(self._ask_all_missed())
        self._missed |= numbers

    async def _ask_all_missed(self) -> None:
        """Has the status of all waiters without an outcome fetched whose shards were renewed."""
        await asyncio.sleep(random.random() * SPREAD)
        missed, self._missed = self._missed, set()
        for waiter in self._waiters:
            is_open = waiter.ended is None and not waiter.gone and waiter.accepted
            if is_open and self._questions.shard_of(waiter.id) in missed:
                self._ask(waiter)

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        """Starts a background task, and holds it until it is done."""
        # In an empty context: the task outlives this call, and must not keep the caller's context variables.
        task: asyncio.Task[None] = self._loop.create_task(coroutine, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Question:
    """The waiters whose status is to be fetched from one server.

    Attributes:
        asked: these waiters, by the ids of their jobs.
        looking: the task that fetches it.
    """

    def __init__(self) -> None:
        self.asked: dict[str, Waiter] = {}
        self.looking: asyncio.Task[None] | None = None


class _Questions:
    """A question for each group of shards, see `Connections.together`: a node that is away must not hold up
    the waits for jobs of the others.
    """

    def __init__(self, commands: Commands) -> None:
        self._shards = commands.shards
        together = commands.connections.together
        self._questions = [_Question() for _ in together]
        self._by_shard = {
            number: question
            for numbers, question in zip(together, self._questions, strict=True)
            for number in numbers
        }

    def of(self, id: str) -> _Question:
        """Returns the question that a job belongs to."""
        if len(self._questions) == 1:
            return self._questions[0]
        return self._by_shard[self.shard_of(id)]

    def shard_of(self, id: str) -> int:
        """Returns the number of the shard in which a job lies."""
        return self._shards.number(id)


def _join_kin(one: Waiter, other: Waiter) -> None:
    """Makes two waiters of one job kin of each other, and of the kin that either has. Waiters of closed
    sessions are dropped: they know nothing that these two do not know by now.
    """
    known = [*(one.kin or (one,)), *(other.kin or (other,))]
    kin = [each for n, each in enumerate(known) if each not in known[:n]]
    kin = [each for each in kin if each in {one, other} or not each.listener.is_closed]
    for each in kin:
        each.kin = kin


def _until(milliseconds: int) -> float:
    return max(0.0, milliseconds / 1000 - clock.now()) + 0.002


def _resolve_future(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
