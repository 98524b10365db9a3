"""The verbs: what can be done to a job in Redis, each one script and safe to send twice. `Commands` sends
them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncq import failures, wire
from asyncq.broker.commands import Commands
from asyncq.broker.cross_shard.wait_cycles import Waits
from asyncq.broker.dead_letter_store import DeadLetterStore
from asyncq.broker.early_end import early_end
from asyncq.broker.enqueue import Intake
from asyncq.broker.kept_values import KeptValues
from asyncq.broker.preflight import rights
from asyncq.broker.schema import damaged_data
from asyncq.broker.schema.keys import DAY_MS, GROUP, LEVEL, queue_of, result_ttl_ms, text_of
from asyncq.broker.schema.records import JobStatus, Record, status_of
from asyncq.broker.schema.shards import MOST_SHARDS
from asyncq.broker.transport.pipe import PipeBroken
from asyncq.broker.transport.reconnect import pause
from asyncq.broker.transport.server_error import ErrorAction, ServerError
from asyncq.broker.waiters import Listener
from asyncq.errors import BrokerNotConfigured, BrokerUnavailable, DecodeError
from asyncq.serializers import PLAIN_VALUE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.broker.schema.keys import Keys
    from asyncq.broker.schema.shards import Shards
    from asyncq.broker.transport.connection import Address
    from asyncq.config import Settings

log: logging.Logger = logging.getLogger(__name__)

STATUS_BYTES = 4 * 1024 * 1024
"""So many bytes of outcomes are asked for at a time, and up to three outcomes more: 500 of a megabyte would
stop the server for seconds, and be late for whoever waits for the answer."""
READ_AT_ONCE = 500
READ_BYTES = 1024 * 1024
READER_AWAY_MS = 10_000
"""A reader of a stream that was not heard of for this long holds up nobody."""


class Broker:
    """A client's view of the server: its commands, and one subscription for outcomes.

    Args:
        address: the server.
        settings: of the app.
        channel: on which this client is notified of outcomes.

    Attributes:
        commands: how everything here is sent.
        intake: how jobs get in.
        kept: values that are kept once for several jobs.
        dead: the dead letters.
        waits: of running jobs for others.
        listener: who waits for outcomes, and the subscription.
    """

    def __init__(self, address: Address, settings: Settings, channel: str) -> None:
        self.commands: Commands = Commands(address, settings, channel)
        self.address = address
        self.settings = settings
        self.shards: Shards = self.commands.shards
        self.channel = channel
        self.intake: Intake = Intake(self.commands)
        self.kept: KeptValues = KeptValues(self.commands)
        self.dead: DeadLetterStore = DeadLetterStore(self.commands, self.kept)
        self.waits: Waits = Waits(self.commands)
        self.listener: Listener = Listener(self.commands, self.fetch_status, self.expire, self._hint)

    async def open(self) -> None:
        """Connects and subscribes.

        Raises:
            BrokerUnavailable: the server did not answer within the operation timeout.
            ServerError: it refuses this user.
        """
        loop = asyncio.get_running_loop()
        left = self.settings.operation_timeout - 1.0
        attempt = 0
        while True:
            begun = loop.time()
            try:
                await asyncio.gather(self.commands.connect(), self.listener.subscription.confirm())
                calls = [call for keys in self.shards for call in rights.of_client(keys)]
                await rights.require(self.commands, calls)
                await self._agree_on_shards()
                break
            except (BrokerUnavailable, PipeBroken, ServerError) as error:
                passing = not isinstance(error, ServerError) or error.action in {
                    ErrorAction.RETRY,
                    ErrorAction.RECONNECT,
                }
                attempt += 1
                # No try takes longer than this but in a process that was stopped: the next one may succeed.
                left -= min(loop.time() - begun, self.settings.operation_timeout / 2)
                if passing and left > 0:
                    self.commands.reconnect()
                    wait = pause(attempt)
                    left -= wait
                    await asyncio.sleep(wait)
                    continue
                await self.close()
                if not passing:
                    raise
                raise BrokerUnavailable(str(error)) from error
            except BaseException:
                await self.close()
                raise
        self.listener.start()

    async def close(self) -> None:
        """Closes both connections. Open calls end with `BrokerUnavailable`."""
        self.commands.stop_retrying()
        await self.waits.close()
        await self.listener.close()
        await self.commands.close()
        await self.intake.close()

    async def _agree_on_shards(self) -> None:
        """Sees to it that nobody else counts the shards of this namespace otherwise.

        Raises:
            BrokerNotConfigured: the namespace has another number of them.
        """
        count = self.shards.count
        first, send = self.shards[0], self.commands.send
        key = first.count
        (known,) = await send(first, "MGET", key)
        if known is None and count > 1 and not await send(first, "HGETALL", first.beats):
            # Nobody has said a number, and there is no worker with one shard, who would say none. Of two who
            # come at once the first counts.
            await send(first, "SET", key, count, "NX")
            (known,) = await send(first, "MGET", key)
        if known is not None and wire.number_in(known, MOST_SHARDS) is None:
            if count > 1:
                raise BrokerNotConfigured(
                    f"{key!r} at {self.address.safe_url} should say how many shards namespace "
                    f"{self.settings.namespace!r} has, and says {known[:50]!r}: delete it, and start anew"
                )
            damaged_data.warn(
                log, "number of shards", f"{key!r} does not say how many shards there are", known[:50]
            )
            known = None
        if int(known or 1) != count:
            raise BrokerNotConfigured(
                f"namespace {self.settings.namespace!r} has {int(known or 1)} shards at "
                f"{self.address.safe_url}, and this app says shards={count}: jobs would be looked for where "
                "they are not. Use the same number everywhere, or another namespace; to change it, let all "
                f"jobs end, stop the workers, and delete {key!r}"
            )

    # -- verbs on one job --

    async def fetch_status(self, ids: list[str], channel: str = "") -> list[JobStatus]:
        """How jobs stand: the outcome of an ended one, the flags of a live one (and after a space when it
        expires, in ms), None for an unknown one.

        With a channel, a live job's waiters are joined by it in the same atomic step.
        """
        found = await self._fetch_in_shards(ids, channel)
        missing = [id_ for id_, answer in found.items() if answer is None]
        if missing and await self.commands.forwarded_if_any():  # see `Commands.run_known`
            found |= await self._fetch_in_shards(missing, channel)
        return [status_of(found[id_]) for id_ in ids]

    async def _fetch_in_shards(self, ids: Sequence[str], channel: str) -> dict[str, bytes | None]:
        by_shard = self.shards.apportion(ids)
        fetches = [self._fetch_in(self.shards[number], some, channel) for number, some in by_shard.items()]
        found: dict[str, bytes | None] = {}
        for some, answers in zip(by_shard.values(), await asyncio.gather(*fetches), strict=True):
            found.update(zip(some, answers, strict=True))
        return found

    async def _fetch_in(self, keys: Keys, ids: Sequence[str], channel: str) -> list[bytes | None]:
        """What the script answers about each, in as many calls as there are bytes."""
        answers: list[bytes | None] = []
        while len(answers) < len(ids):
            left = ids[len(answers) :]
            answers += await self.commands.run(
                keys, "fetch_status", (), (keys.records, channel, STATUS_BYTES, *left)
            )
        return answers

    async def state(self, id: str, timeout: float | None = None) -> wire.Ended | wire.JobSnapshot | None:
        """Where a job is: its outcome, or how it stands, or None if it is unknown. Timeout as `run`."""
        keys = self.shards.of(id)
        answer = await self.commands.run_known(
            keys,
            "state",
            (keys.records + id, keys.latest + id),
            (keys.queues, GROUP, keys.messages + id),
            unknown=[],
            timeout=timeout,
        )
        if not answer:
            return None
        try:
            return _state(answer)
        except (DecodeError, ValueError) as error:  # also a UnicodeDecodeError
            damaged_data.warn(
                log, "record", f"the record of job {id!r} could not be read, so that it is unknown", error
            )
            return None

    async def record(self, id: str) -> bytes | None:
        """What stands in Redis about a job, for people who look for a fault; None if there is nothing."""
        keys = self.shards.of(id)
        (found,) = await self.commands.send(keys, "MGET", keys.records + id)
        if found is None and await self.commands.forwarded_if_any():
            (found,) = await self.commands.send(keys, "MGET", keys.records + id)
        record: bytes | None = found
        return record

    async def message(self, id: str, timeout: float | None = None) -> tuple[wire.Job, bytes] | None:
        """The job in the message of one that has not ended, and the values of those that it waited for; None
        if there is none that can be read. Timeout as `run`.
        """
        keys = self.shards.of(id)
        answer = await self.commands.run(
            keys, "message", (keys.records + id, keys.messages + id), (keys.queues,), timeout=timeout
        )
        if not answer:
            return None
        message, values = answer
        try:
            return wire.decode_job(id, "", message), await self.kept.filled(keys, values, timeout)
        except DecodeError as error:
            log.debug("the message of job %r could not be read: %s", id, error)
            return None

    async def revoke(
        self, id: str, *, mark: str, outcome: bytes, reason: str = "", parents: bool = False
    ) -> str:
        """Ends a job that no worker has, marks one that a worker has: `revoked`, `signalled`, `ended` or
        `unknown`. A workflow that has taken the job's place goes the same way, and with `parents` whatever
        the job still waits for.
        """
        answer, found = await self._end_early(id, wire.REVOKED, outcome, mark, reason, parents=parents)
        seen = {id}
        while found := [one for one in dict.fromkeys(found) if one not in seen]:
            seen.update(found)
            text = reason.encode("utf-8", "replace")
            ended = wire.Ended(wire.REVOKED, text, finished=int(time.time() * 1000))
            words = wire.encode_bad_end(ended, partial(failures.short, reason))
            ends = (self._end_early(one, wire.REVOKED, words, mark, reason, parents=True) for one in found)
            found = [above for _, ids in await asyncio.gather(*ends) for above in ids]
        return answer

    async def expire(self, id: str) -> str:
        """Ends a job that no worker has because its time has passed: `revoked`, `running`, `ended` or
        `unknown`.
        """
        outcome = wire.encode_ended(wire.Ended(wire.EXPIRED, finished=int(time.time() * 1000)))
        answer, _ = await self._end_early(id, wire.EXPIRED, outcome, wire.NOT_AGAIN)
        return answer

    async def _end_early(
        self, id_: str, letter: str, outcome: bytes, mark: str, reason: str = "", *, parents: bool = False
    ) -> tuple[str, list[str]]:
        keys, ttl = self.shards.of(id_), self.settings.result_ttl
        call = early_end(keys, id_.encode(), letter, outcome, ttl, mark=mark, reason=reason, parents=parents)
        answer = await self.commands.run_known(
            keys, "revoke", call.keys, call.arguments, unknown=[b"unknown"]
        )
        text, *ids = [word.decode() for word in answer]
        if text == "revoked" and not self.shards.is_one:
            # There may be no worker to forward it, and those that wait for the job elsewhere must hear of it.
            await self.commands.forwarded(keys)
        return text, ids

    async def forget(self, id: str) -> str:
        """Forgets a result: `forgotten`, `flagged` (a live job's, when it ends) or `unknown`."""
        keys = self.shards.of(id)
        kept = (keys.records + id, keys.latest + id, keys.items + id, keys.places + id)
        answer = await self.commands.run_known(keys, "forget", kept, unknown=b"unknown")
        text: str = answer.decode()
        return text

    # -- streams --

    async def read_items(
        self, id: str, after: int, taken: int
    ) -> tuple[JobStatus, bool, list[tuple[int, bytes]]]:
        """What a generator has yielded behind a number, some 500 items or a megabyte at a time: how its job
        stands, as `fetch_status` returns it; whether it has ended and this is all; and the items with their
        numbers.

        Args:
            id: the job.
            after: the number of the last item that is at hand; 0 for all.
            taken: the number of the last item that the reader's user took.

        Raises:
            BrokerUnavailable: no answer within the operation timeout.
        """
        keys = self.shards.of(id)
        found, *flat = await self.commands.send(keys, *self._read(keys, id, after, READ_AT_ONCE, taken))
        items = [
            (int(entry.partition(b"-")[0]), data) for entry, data in zip(flat[::2], flat[1::2], strict=True)
        ]
        if found is not None and len(found) == 4:
            # Only the flags: there is, or may be, more to read, also of a job that has ended.
            return found.decode("latin-1"), False, items
        how = status_of(found)
        return how, not isinstance(how, str), items

    def note_place(self, id: str, taken: int) -> None:
        """Says how far a reader is. If it is lost on the way, the next one says it."""
        keys = self.shards.of(id)
        self.commands.post(keys, self._read(keys, id, taken, 0, taken), None)

    def _read(self, keys: Keys, id_: str, after: int, count: int, taken: int) -> tuple[Any, ...]:
        return self.commands.build(
            "read",
            (keys.records + id_, keys.items + id_, keys.places + id_),
            (after, count, READ_BYTES, taken, keys.events + id_, READER_AWAY_MS, DAY_MS),
        )

    async def save_group(self, id: str, description: bytes) -> None:
        """Keeps the description of a group for as long as a result; again is anew."""
        keys, ttl = self.shards.of(id), result_ttl_ms(self.settings.result_ttl)
        await self.commands.send(keys, "SET", keys.groups + id, description, "PX", ttl)

    async def restore_group(self, id: str) -> bytes | None:
        """The description that was saved, or None."""
        keys = self.shards.of(id)
        # The scripts need MGET anyway: one right less than GET.
        found: list[bytes | None] = await self.commands.send(keys, "MGET", keys.groups + id)
        return found[0]

    async def delete_group(self, id: str) -> None:
        """Drops the description. Twice is once."""
        keys = self.shards.of(id)
        await self.commands.send(keys, "DEL", keys.groups + id)

    async def listened_to(self, queue: str) -> bool:
        """Whether a living worker reads from a queue. Each reads from it in all shards, and from all levels;
        one that is busy with a high level of one shard may not have come to the others yet.
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
        """The levels of priority of a queue that is called so, and whether it is read from."""
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
        if not await self.listened_to(queue):
            log.warning(
                "a result is waited for, but no worker listens on queue %r at %s; start one: "
                "asyncq worker MODULE:APP%s",
                queue,
                self.address.safe_url,
                "" if queue == self.settings.default_queue else f" {queue}",
            )

    async def server_version(self) -> str:
        """Such as `valkey 9.1.2` or `redis 7.0.15`."""
        info = (await self.commands.send(self.shards[0], "INFO", "server")).decode()
        fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        name = fields.get("server_name", "redis")
        return f"{name} {fields.get(f'{name}_version', fields.get('redis_version', '?'))}"


def _state(answer: list[Any]) -> wire.Ended | wire.JobSnapshot:
    """Where a job is, as the script `state` answers it.

    Raises:
        DecodeError, ValueError: its record is not one of asyncq.
    """
    if len(answer) == 1:
        return Record.parse(answer[0]).ended()
    flags, queue = answer[0].decode(), queue_of(answer[1].decode())
    if len(answer) == 2:
        return wire.JobSnapshot(flags, queue)
    if flags[0] == wire.RETRYING:
        return wire.JobSnapshot(flags, queue, retries=answer[2], failure=answer[3])
    entry = answer[2].decode()
    wire.entry_order(entry)
    if len(answer) == 3:
        return wire.JobSnapshot(flags, queue, entry)
    _, _, _, consumer, started, report = answer
    return wire.JobSnapshot(
        flags,
        queue,
        entry,
        worker=text_of(consumer).rpartition("-")[0],  # a token is behind its name
        started=started,
        report=_report(report) if report else None,
    )


def _report(data: bytes) -> wire.Report | None:
    """What a running job said of itself; None if that cannot be read: the job runs all the same."""
    try:
        report = wire.decode_report(data)
        PLAIN_VALUE.loads(report.meta)
    except DecodeError as error:
        damaged_data.warn(log, "report", "what a running job said of itself could not be read", error)
        return None
    return report
