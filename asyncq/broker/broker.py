"""What a session can ask of the server: the status of jobs, revoke, expire, forget, stream items, groups. It
also opens and closes the session's connections.

Runs on the session's loop. Each verb that changes a job is one script, which may be sent twice and counts
once; `Commands` sends it. Jobs get in by `enqueue`, and workers use `consumer` and `claims` instead.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from asyncq import failures, wire
from asyncq.broker.commands import Commands
from asyncq.broker.cross_shard.wait_cycles import Waits
from asyncq.broker.dead_letter_store import DeadLetterStore
from asyncq.broker.early_end import early_end
from asyncq.broker.enqueue import Intake
from asyncq.broker.history import History
from asyncq.broker.kept_values import KeptValues
from asyncq.broker.preflight import rights
from asyncq.broker.schedule_store import ScheduleStore
from asyncq.broker.schema import answer_tags, damaged_data
from asyncq.broker.schema.keys import DAY_MS, GROUP, LEVEL, queue_of, result_ttl_ms, text_of
from asyncq.broker.schema.records import JobStatus, Record, status_of
from asyncq.broker.schema.shards import MOST_SHARDS
from asyncq.broker.transport.pipe import PipeBroken
from asyncq.broker.transport.reconnect import pause
from asyncq.broker.transport.server_error import ErrorAction, ServerError
from asyncq.broker.waiters import Listener
from asyncq.broker.worker_store import WorkerStore
from asyncq.errors import BrokerNotConfigured, BrokerUnavailable, DecodeError
from asyncq.serializers import PLAIN_VALUE
from asyncq.system import clock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncq.broker.job_lists import JobLists
    from asyncq.broker.queue_store import QueueStore
    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.schema.shards import Shards
    from asyncq.broker.signing.seal import Seal
    from asyncq.broker.transport.connection import Address
    from asyncq.broker.worker_orders import WorkerOrders
    from asyncq.config import Settings

log: logging.Logger = logging.getLogger(__name__)

STATUS_BYTES = 4 * 1024 * 1024
"""With so many bytes of outcomes a reply has enough, and up to three outcomes more. 500 outcomes of a
megabyte would stop the server for seconds, and would be late for the caller."""
READ_AT_ONCE = 500
"""Most items of a stream that one read returns."""
READ_BYTES = 1024 * 1024
"""With so many bytes of items, one read has enough."""
READER_AWAY_MS = 10_000
"""The generator does not wait for a reader that has not reported for so long."""


class Broker:
    """A session's view of the server: its commands, and one subscription for outcomes.

    Args:
        address: the server.
        settings: of the app.
        channel: the reply channel, on which this session is notified of outcomes.

    Attributes:
        address, settings, channel: as given.
        shards: of the namespace.
        commands: sends everything here.
        intake: enqueues jobs.
        history: the jobs that have ended lately.
        kept: the values that are stored once for several jobs.
        dead: the dead letters.
        workers: reads what workers say of themselves.
        schedules: the schedules.
        waits: notes which running job waits for which.
        listener: the waiters for outcomes, and the subscription.
    """

    def __init__(self, address: Address, settings: Settings, channel: str) -> None:
        self.commands: Commands = Commands(address, settings, channel)
        self.address = address
        self.settings = settings
        self.shards: Shards = self.commands.shards
        self.channel = channel
        self.intake: Intake = Intake(self.commands)
        self.history: History = History(self.commands)
        self.commands.on_ends = self.history.note_ends
        self.kept: KeptValues = KeptValues(self.commands)
        self.dead: DeadLetterStore = DeadLetterStore(self.commands, self.kept)
        self.workers: WorkerStore = WorkerStore(self.commands)
        self.schedules: ScheduleStore = ScheduleStore(self.commands)
        self.waits: Waits = Waits(self.commands)
        self.listener: Listener = Listener(self.commands, self.fetch_status, self.expire, self._hint)

    # These three are imported when they are first used: a worker never needs them, and saves their memory.

    @cached_property
    def queues(self) -> QueueStore:
        """Reads and changes queues for an operator."""
        from asyncq.broker.queue_store import QueueStore

        return QueueStore(self.commands, self.intake.known)

    @cached_property
    def jobs(self) -> JobLists:
        """Lists jobs for an operator."""
        from asyncq.broker.job_lists import JobLists

        return JobLists(self.commands)

    @cached_property
    def orders(self) -> WorkerOrders:
        """Sends the orders of an operator to workers."""
        from asyncq.broker.worker_orders import WorkerOrders

        return WorkerOrders(self.commands, self.listener.subscription)

    async def open(self) -> None:
        """Connects and subscribes, and checks the user's rights and the number of shards. If it raises or is
        cancelled, everything is closed again.

        Raises:
            BrokerUnavailable: the server did not answer within the operation timeout.
            BrokerNotConfigured: the namespace has another number of shards.
            ServerError: the server refuses this user.
        """
        loop = asyncio.get_running_loop()
        left = self.settings.operation_timeout - 1.0
        attempt = 0
        while True:
            started = loop.time()
            try:
                await asyncio.gather(self.commands.connect(), self.listener.subscription.confirm())
                calls = [call for keys in self.shards for call in self._needed(keys)]
                await rights.require(self.commands, calls)
                await self._agree_on_shards()
                break
            except (BrokerUnavailable, PipeBroken, ServerError) as error:
                passing = not isinstance(error, ServerError) or error.action in {
                    ErrorAction.RETRY,
                    ErrorAction.MOVED,
                    ErrorAction.RECONNECT,
                }
                attempt += 1
                # A try takes at most half the operation timeout. One that seems to have taken longer was in a
                # process that was stopped meanwhile: it counts half, so that another try is left.
                left -= min(loop.time() - started, self.settings.operation_timeout / 2)
                if passing and left > 0:
                    self.commands.reconnect()
                    wait = pause(attempt)
                    left -= wait
                    await asyncio.sleep(wait)
                    continue
                await self.close()
                if isinstance(error, ServerError) and not passing:
                    raise rights.explained(error, self.address) from None
                raise BrokerUnavailable(str(error)) from error
            except BaseException:
                await self.close()
                raise
        self.listener.start()

    async def close(self) -> None:
        """Closes both connections. Open calls end with `BrokerUnavailable`. A second call does nothing."""
        # In this order: first nothing is sent again, then the last notes of waits leave, for which the
        # connection must be open, and the calls of `intake` end when the connection is closed.
        self.commands.stop_retrying()
        self.history.flush()
        self.intake.known.send()
        await self.waits.close()
        await self.listener.close()
        await self.commands.close()
        await self.intake.close()

    def _needed(self, keys: Keys) -> list[rights.RequiredCommand]:
        """Returns the calls in a shard that the user must be allowed to make."""
        return rights.of_client(keys, replicas=self.settings.replicas > 0, is_cluster=self.address.is_cluster)

    async def _agree_on_shards(self) -> None:
        """Checks that every app of this namespace has the same number of shards. The first app with more than
        one shard stores the number.

        Raises:
            BrokerNotConfigured: the namespace has another number of shards.
        """
        count = self.shards.count
        first, send = self.shards[0], self.commands.send
        key = first.count
        (known,) = await send(first, "MGET", key)
        if known is None and count > 1 and not await send(first, "HGETALL", first.beats):
            # No number is stored, and no worker has a heartbeat. An app with one shard stores no number, so
            # its workers are the only sign of it. NX: of two apps that open at once, the first decides.
            await send(first, "SET", key, count, "NX")
            (known,) = await send(first, "MGET", key)
        if known is not None and wire.number_in(known, MOST_SHARDS) is None:
            if count > 1:
                raise BrokerNotConfigured(
                    f"{key!r} at {self.address.safe_url} should hold the number of shards of namespace "
                    f"{self.settings.namespace!r}, but holds {known[:50]!r}: delete it, and start again"
                )
            damaged_data.warn(
                log, "number of shards", f"{key!r} does not hold a number of shards", known[:50]
            )
            known = None
        if int(known or 1) != count:
            raise BrokerNotConfigured(
                f"namespace {self.settings.namespace!r} has {int(known or 1)} shards at "
                f"{self.address.safe_url}, but this app says shards={count}: it would look for jobs in the "
                "wrong shards. Use the same number everywhere, or another namespace. To change the number, "
                f"let all jobs end, stop the workers, and delete {key!r}"
            )

    # -- verbs on one job --

    async def fetch_status(self, ids: list[str], channel: str = "") -> list[JobStatus]:
        """Returns the status of jobs: the outcome of an ended job, the flags of a live one (and, after a
        space, when it expires, in ms), None for an unknown one. Raises as `Commands.run`.

        With a channel, the server adds the channel to the waiters of each live job in the same atomic step,
        so no end of a job can fall between this answer and the wait.
        """
        found = await self._fetch_in_shards(ids, channel)
        missing = [id_ for id_, answer in found.items() if answer is None]
        if missing and await self.commands.forwarded_if_any():  # see `Commands.run_known`
            found |= await self._fetch_in_shards(missing, channel)
        seal = self.commands.seal
        return [status_of(found[id_], id_, seal) for id_ in ids]

    async def _fetch_in_shards(self, ids: Sequence[str], channel: str) -> dict[str, bytes | None]:
        """Asks every shard for its jobs, all shards at once. Returns the scripts' answers by id."""
        by_shard = self.shards.apportion(ids)
        fetches = [self._fetch_in(self.shards[number], some, channel) for number, some in by_shard.items()]
        found: dict[str, bytes | None] = {}
        for some, answers in zip(by_shard.values(), await asyncio.gather(*fetches), strict=True):
            found.update(zip(some, answers, strict=True))
        return found

    async def _fetch_in(self, keys: Keys, ids: Sequence[str], channel: str) -> list[bytes | None]:
        """Returns what the script answers about each. Long outcomes take several calls."""
        answers: list[bytes | None] = []
        while len(answers) < len(ids):
            left = ids[len(answers) :]
            answers += await self.commands.run(
                keys, "fetch_status", (), (keys.records, channel, STATUS_BYTES, *left)
            )
        return answers

    async def state(self, id: str, timeout: float | None = None) -> wire.Ended | wire.JobSnapshot | None:
        """Returns the outcome of a job, or its status, or None if it is unknown or its record is damaged.
        Timeout and errors as `Commands.run`.
        """
        keys = self.shards.of(id)
        answer = await self.commands.run_known(
            keys,
            "state",
            (keys.records + id, keys.latest + id),
            (keys.queues, GROUP, keys.messages + id),
            unknown=[answer_tags.UNKNOWN],
            timeout=timeout,
        )
        if answer[0] == answer_tags.UNKNOWN:
            return None
        try:
            return _state(answer, id, self.commands.seal)
        except wire.NotSigned as error:
            return wire.Ended(wire.FAILED, failures.encode(DecodeError(str(error))))
        except (DecodeError, ValueError) as error:  # also a UnicodeDecodeError
            damaged_data.warn(
                log, "record", f"the record of job {id!r} could not be read, so the job is unknown", error
            )
            return None

    async def record(self, id: str) -> bytes | None:
        """Returns the record of a job as it is in Redis, for `asyncq jobs show --raw`; None if there is none.
        Raises as `Commands.run`.
        """
        keys = self.shards.of(id)
        (found,) = await self.commands.send(keys, "MGET", keys.records + id)
        if found is None and await self.commands.forwarded_if_any():
            (found,) = await self.commands.send(keys, "MGET", keys.records + id)
        record: bytes | None = found
        return record

    def opened(self, id: str, record: bytes) -> bytes:
        """Returns the record of a job with its outcome as it was before it was signed or encrypted. If that
        is not signed, the record is that of a job which failed with a `DecodeError`.
        """
        seal = self.commands.seal
        return record if seal is None else seal.record(id, record)

    async def message(self, id: str, timeout: float | None = None) -> tuple[wire.Job, bytes] | None:
        """Returns a job that has not ended, from its message, and the values of its parents. Returns None if
        there is no message that can be read. Timeout and errors as `Commands.run`.
        """
        keys = self.shards.of(id)
        answer = await self.commands.run(
            keys, "message", (keys.records + id, keys.messages + id), (keys.queues,), timeout=timeout
        )
        if answer[0] != answer_tags.FOUND:
            return None
        _, message, values = answer
        try:
            if self.commands.seal is not None:
                return await self._opened_message(self.commands.seal, keys, id, message, values, timeout)
            return wire.decode_job(id, "", message), await self.kept.filled(keys, values, timeout)
        except DecodeError as error:
            log.debug("the message of job %r could not be read: %s", id, error)
            return None

    async def _opened_message(
        self, seal: Seal, keys: Keys, id_: str, message: bytes, values: bytes, timeout: float | None
    ) -> tuple[wire.Job, bytes] | None:
        """Does the rest of `message` with secrets: the record names the queue, for which it is signed."""
        (found,) = await self.commands.send(keys, "MGET", keys.records + id_, timeout=timeout)
        if found is None:
            return None
        queue = queue_of(Record.parse(found).queue)
        job = wire.decode_job(id_, queue, seal.open_message(id_, queue, message, values or None))
        return job, await self.kept.filled(keys, seal.checked_values(job, values), timeout)

    async def revoke(
        self, id: str, *, signal: str, outcome: bytes, reason: str = "", parents: bool = False
    ) -> str:
        """Ends a job that no worker has, and sends a revocation signal to a job that a worker has. Does the
        same to the jobs of a workflow that has taken the job's place, and with `parents` to all jobs that the
        job still waits for. Raises as `Commands.run`; then some of the jobs may be revoked.

        Args:
            id: of the job.
            signal: the revocation signal.
            outcome: of the job, if it ends now.
            reason: for whoever waits for the job.
            parents: whether to revoke the job's parents, too.

        Returns:
            `revoked`, `signalled`, `ended` or `unknown`, of the job itself.
        """
        answer, found = await self._end_early(id, wire.REVOKED, outcome, signal, reason, parents=parents)
        seen = {id}
        while found := [one for one in dict.fromkeys(found) if one not in seen]:
            seen.update(found)
            text = reason.encode("utf-8", "replace")
            ended = wire.Ended(wire.REVOKED, text, finished=int(clock.now() * 1000))
            words = wire.encode_bad_end(ended, partial(failures.short, reason))
            ends = (self._end_early(one, wire.REVOKED, words, signal, reason, parents=True) for one in found)
            found = [above for _, ids in await asyncio.gather(*ends) for above in ids]
        return answer

    async def expire(self, id: str) -> str:
        """Ends a job as expired if no worker has it. Raises as `Commands.run`.

        Returns:
            `revoked` if it has ended so, `running` if a worker has it, `ended` or `unknown`.
        """
        outcome = wire.encode_ended(wire.Ended(wire.EXPIRED, finished=int(clock.now() * 1000)))
        answer, _ = await self._end_early(id, wire.EXPIRED, outcome, wire.NOT_AGAIN)
        return answer

    async def _end_early(
        self, id_: str, letter: str, outcome: bytes, signal: str, reason: str = "", *, parents: bool = False
    ) -> tuple[str, list[str]]:
        """Runs the script `revoke` for one job. Returns what became of the job, and the ids of the jobs that
        must go the same way.
        """
        keys, ttl, seal = self.shards.of(id_), self.settings.result_ttl, self.commands.seal
        call = early_end(
            keys, id_, letter, outcome, ttl, signal=signal, reason=reason, parents=parents, seal=seal
        )
        answer = await self.commands.run_known(
            keys, "revoke", call.keys, call.arguments, unknown=[b"unknown"]
        )
        text, *ids = [word.decode() for word in answer]
        if text == "revoked" and not self.shards.is_one:
            # Jobs in other shards may wait for this one. There may be no worker that would forward its end.
            await self.commands.forwarded(keys)
        return text, ids

    async def forget(self, id: str) -> str:
        """Forgets the result of a job. Raises as `Commands.run`.

        Returns:
            `forgotten`, `flagged` (the job is live, and its result is forgotten when it ends) or `unknown`.
        """
        keys = self.shards.of(id)
        kept = (keys.records + id, keys.latest + id, keys.items + id, keys.reader_positions + id)
        answer = await self.commands.run_known(keys, "forget", kept, unknown=b"unknown")
        text: str = answer.decode()
        return text

    # -- streams --

    async def read_items(
        self, id: str, after: int, taken: int
    ) -> tuple[JobStatus, bool, list[tuple[int, bytes]]]:
        """Reads the items that a generator has yielded after a number, up to 500 items or a megabyte. Reports
        how far the reader has read.

        Args:
            id: the job.
            after: the number of the last item that the reader has; 0 to read from the first.
            taken: the number of the last item that the reader's user took.

        Returns:
            The status of the job, as `fetch_status` returns it; True if the job has ended and these are its
            last items; and the items with their numbers.

        Raises:
            BrokerUnavailable: no answer within the operation timeout.
        """
        keys = self.shards.of(id)
        answer = await self.commands.send(keys, *self._read(keys, id, after, READ_AT_ONCE, taken))
        if answer[0] == answer_tags.UNKNOWN:
            return None, True, []
        tag, found, *flat = answer
        items = [
            (int(entry.partition(b"-")[0]), data) for entry, data in zip(flat[::2], flat[1::2], strict=True)
        ]
        if self.commands.seal is not None:
            items = [(number, self.commands.seal.open_item(id, number, data)) for number, data in items]
        if tag == answer_tags.MORE:
            # Only the flags: there are, or may be, more items, even if the job has ended.
            return found.decode("latin-1"), False, items
        how = status_of(found, id, self.commands.seal)
        return how, not isinstance(how, str), items

    def note_position(self, id: str, taken: int) -> None:
        """Reports how far a reader has read, in one try. The reader's next report makes up for a lost one."""
        keys = self.shards.of(id)
        self.commands.post(keys, self._read(keys, id, taken, 0, taken), None)

    def _read(self, keys: Keys, id_: str, after: int, count: int, taken: int) -> tuple[Any, ...]:
        """Returns the command that reads up to `count` items and notes how far the reader has read."""
        return self.commands.build(
            keys,
            "read",
            (keys.records + id_, keys.items + id_, keys.reader_positions + id_),
            (after, count, READ_BYTES, taken, keys.events + id_, READER_AWAY_MS, DAY_MS),
        )

    async def save_group(self, id: str, description: bytes) -> None:
        """Stores the description of a group for as long as a result is kept. A second call overwrites it.
        Raises as `Commands.run`.
        """
        keys, ttl = self.shards.of(id), result_ttl_ms(self.settings.result_ttl)
        if self.commands.seal is not None:
            description = self.commands.seal.close("group", id, description)
        await self.commands.send(keys, "SET", keys.groups + id, description, "PX", ttl)

    async def restore_group(self, id: str) -> bytes | None:
        """Returns the description that was stored, or None. Raises as `Commands.run`, and `DecodeError` if it
        is not signed.
        """
        keys = self.shards.of(id)
        # MGET instead of GET: the scripts need MGET anyway, so the server's user needs one right less.
        [found] = await self.commands.send(keys, "MGET", keys.groups + id)
        description: bytes | None = found
        if description is None or self.commands.seal is None:
            return description
        return self.commands.seal.open("group", id, description)

    async def delete_group(self, id: str) -> None:
        """Deletes the description. A second call does nothing. Raises as `Commands.run`."""
        keys = self.shards.of(id)
        await self.commands.send(keys, "DEL", keys.groups + id)

    async def listened_to(self, queue: str) -> bool:
        """Returns whether a worker with a heartbeat reads from a queue. Raises as `Commands.run`.

        All shards and levels are asked. A worker reads from all of them, but one that is busy with a high
        level of one shard may not have read from the others yet.
        """
        for keys in self.shards:
            levels, listened = await self._listened_to(keys, queue)
            names = (
                [] if listened else [f"{queue}{LEVEL}{level.decode('utf-8', 'replace')}" for level in levels]
            )
            if listened or any([(await self._listened_to(keys, name))[1] for name in names]):
                return True
        return False

    async def _listened_to(self, keys: Keys, name: str) -> tuple[list[bytes], bool]:
        """Returns the levels of priority of the queue `name`, and whether a worker reads from the stream of
        that name.
        """
        send = self.commands.send
        levels = await send(keys, "SMEMBERS", keys.levels + name)
        try:
            readers = await send(keys, "XINFO", "CONSUMERS", keys.stream(name), GROUP)
        except ServerError as error:
            if error.action is ErrorAction.NO_GROUP or "no such key" in str(error):
                return list(levels), False
            raise
        beats = await send(keys, "HGETALL", keys.beats) if readers else {}
        return list(levels), any(reader[b"name"] in beats for reader in readers)

    async def _hint(self, queue: str) -> None:
        """Logs a warning if no worker with a heartbeat reads from a queue."""
        if not await self.listened_to(queue):
            log.warning(
                "this process waits for a result, but no worker listens on queue %r at %s; start one: "
                "asyncq worker MODULE:APP%s",
                queue,
                self.address.safe_url,
                "" if queue == self.settings.default_queue else f" {queue}",
            )

    async def server_version(self) -> str:
        """Returns name and version of the server, such as `valkey 9.1.2` or `redis 7.0.15`."""
        return version_in(await self.server_info("server"))

    async def server_info(self, section: str = "default") -> dict[str, str]:
        """Returns what the server, or one of a cluster, says about itself: the fields of `INFO`."""
        info = (await self.commands.send(self.shards[0], "INFO", section)).decode()
        return dict(line.split(":", 1) for line in info.splitlines() if ":" in line)

    async def round_trip(self) -> float:
        """Returns how many seconds the server takes to answer."""
        begin = time.perf_counter()
        await self.commands.send(self.shards[0], "PING")
        return time.perf_counter() - begin


def version_in(info: Mapping[str, str]) -> str:
    """Returns name and version of a server, from what it says about itself."""
    name = info.get("server_name", "redis")
    return f"{name} {info.get(f'{name}_version', info.get('redis_version', '?'))}"


def _state(answer: list[Any], id_: str, seal: Seal | None) -> wire.Ended | wire.JobSnapshot:
    """Decodes the answer of the script `state`. Its first element tells which fields follow.

    Raises:
        DecodeError, ValueError: the record is not one of asyncq.
    """
    if answer[0] == answer_tags.ENDED:
        return Record.parse(answer[1] if seal is None else seal.record(id_, answer[1])).ended()
    tag, flags, queue, *more = answer
    flags, queue = flags.decode(), queue_of(queue.decode())
    if tag == answer_tags.DELAYED:
        return wire.JobSnapshot(flags, queue)
    if tag == answer_tags.RETRYING:
        retries, failure = more
        if seal is not None:
            failure = seal.opened_failure(id_, failure)
        return wire.JobSnapshot(flags, queue, retries=retries, failure=failure)
    entry = more[0].decode()
    wire.entry_order(entry)
    if tag == answer_tags.QUEUED:
        return wire.JobSnapshot(flags, queue, entry)
    _, consumer, started, report = more
    return wire.JobSnapshot(
        flags,
        queue,
        entry,
        worker=text_of(consumer).rpartition("-")[0],  # a session id is the worker's name and a token
        started=started,
        report=_report(report, id_, seal) if report else None,
    )


def _report(data: bytes, id_: str, seal: Seal | None) -> wire.Report | None:
    """Decodes the report of a running job. Returns None if it cannot be read: the job runs all the same."""
    try:
        report = wire.decode_report(data if seal is None else seal.open_report(id_, data))
        PLAIN_VALUE.loads(report.meta)
    except DecodeError as error:
        damaged_data.warn(log, "report", "the report of a running job could not be read", error)
        return None
    return report
