"""The verbs: what can be done to a job in Redis, each one script and safe to send twice.

Retrying is asyncq's own. Whatever breaks on the way, the same command goes out again, with pauses, until it
is answered or its time is over; the scripts see to it that twice is once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from asyncq import wire
from asyncq.broker import rights, scripts
from asyncq.broker.circle import way_back
from asyncq.broker.connection import Address, ServerError, Verdict
from asyncq.broker.deadletters import DeadLetters
from asyncq.broker.intake import Intake
from asyncq.broker.keys import GROUP, LEVEL, queue_of
from asyncq.broker.line import Line, pause
from asyncq.broker.listener import Listener
from asyncq.broker.looks import Look, standing
from asyncq.broker.pipe import PipeBroken
from asyncq.broker.relay import Relay
from asyncq.broker.shards import Shards
from asyncq.config import shown
from asyncq.errors import AsyncQError, BrokerNotConfigured, BrokerUnavailable, DecodeError, QueueFull

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncq.broker.keys import Keys
    from asyncq.config import Settings

log: logging.Logger = logging.getLogger(__name__)

TOMBSTONE_MS = 60_000
DAY_MS = 86_400_000
READ_AT_ONCE = 500
READ_BYTES = 1024 * 1024
READER_AWAY_MS = 10_000
"""A reader of a stream that was not heard of for this long holds up nobody."""
MOST_FOLLOWED = 10_000
"""How many jobs one look for a cycle of waits may see: some 20 ms of the server's time."""
FOREVER = float("inf")
"""The patience of a worker: what it has to say is true however long the server is away. It ends with its
app."""


def token() -> str:
    """A random name for a process's life: never reused, also not after a fork."""
    return os.urandom(8).hex()


class Broker:
    """A client's view of the server: one pipelined connection for commands, one subscription for outcomes."""

    def __init__(self, address: Address, settings: Settings, channel: str) -> None:
        self.address = address
        self.settings = settings
        self.shards: Shards = Shards(settings.namespace, settings.shards)
        self.scripts: dict[str, scripts.Script] = scripts.load()
        self.client: str = f"{socket.gethostname()}-{os.getpid()}"
        self.channel = channel
        self._loop = asyncio.get_running_loop()
        # Well under the operation timeout, so that a call on a connection that died in silence still has its
        # time to try again.
        self.line: Line = Line(address, f"asyncq:{self.client}", patience=settings.operation_timeout / 2)
        self._unblocking: set[asyncio.Task[None]] = set()
        self.closing: bool = False
        self.relay: Relay = Relay(self)
        self.intake: Intake = Intake(self)
        self.dead: DeadLetters = DeadLetters(self)
        self.listener: Listener = Listener(
            address, f"asyncq-sub:{self.client}", self.channel, self.look, self.expire, self._hint
        )

    async def open(self) -> None:
        """Connects and subscribes.

        Raises:
            BrokerUnavailable: the server did not answer within the operation timeout.
            ServerError: it refuses this user.
        """
        deadline = self._loop.time() + self.settings.operation_timeout
        attempt = 0
        while True:
            try:
                await asyncio.gather(self.line.pipe(), self.listener.confirm())
                await self.load_scripts()
                await self.require(
                    [call for keys in self.shards for call in rights.of_client(keys)],
                )
                await self._agree_on_shards()
                break
            except (BrokerUnavailable, PipeBroken, ServerError) as error:
                passing = not isinstance(error, ServerError) or error.verdict in {
                    Verdict.RETRY,
                    Verdict.RECONNECT,
                }
                attempt += 1
                if passing and self._loop.time() < deadline - 1.0:
                    self.line.drop()
                    await asyncio.sleep(pause(attempt))
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
        self.closing = True
        if unblocking := list(self._unblocking):
            # Its job may go on after it has closed the app that it waited with, and then waits for nobody.
            _, late = await asyncio.wait(unblocking, timeout=0.25)
            for task in late:
                task.cancel()
        if errands := self.relay.close():
            await asyncio.wait(errands, timeout=1.0)
        await self.listener.close()
        self.line.close()
        await self.intake.close()

    async def load_scripts(self) -> None:
        """Makes all scripts known to the server, in one round trip."""
        pipe = await self.line.pipe()
        await asyncio.gather(
            *(pipe.call("SCRIPT", "LOAD", script.source) for script in self.scripts.values())
        )

    async def require(self, calls: Sequence[rights.Call]) -> None:
        """Sees to it that the user may make these calls.

        Raises:
            ServerError: NOPERM. The first line says what the user lacks, the second what mends it.
            BrokerUnavailable: no answer within the operation timeout.
        """
        refused = await self.run("rights", (), [call.words for call in calls])
        if refused:
            user = self.address.options.get("username") or "default"
            words = {call.decode() for call in refused}
            raise ServerError(rights.complaint(user, self.settings.namespace, calls, words))

    async def _agree_on_shards(self) -> None:
        """Sees to it that nobody else counts the shards of this namespace otherwise.

        Raises:
            BrokerNotConfigured: the namespace has another number of them.
        """
        count = self.shards.count
        key = self.shards[0].count
        (known,) = await self.send("MGET", key)
        if known is None and count > 1 and not await self.send("HGETALL", self.shards[0].beats):
            # Nobody has said a number, and there is no worker with one shard, who would say none. Of two who
            # come at once the first counts.
            await self.send("SET", key, count, "NX")
            (known,) = await self.send("MGET", key)
        if int(known or 1) != count:
            raise BrokerNotConfigured(
                f"namespace {self.settings.namespace!r} has {int(known or 1)} shards at "
                f"{self.address.safe_url}, and this app says shards={count}: jobs would be looked for where "
                "they are not. Use the same number everywhere, or another namespace; to change it, let all "
                f"jobs end, stop the workers, and delete {key!r}"
            )

    # -- the one way a command is sent --

    async def run(
        self, name: str, keys: Sequence[str], arguments: Iterable[Any] = (), *, patience: float | None = None
    ) -> Any:
        """Runs a script, again and again until it is answered.

        Args:
            name: of the script.
            keys: its KEYS.
            arguments: its ARGV.
            patience: seconds to keep trying; None for the client's operation timeout.

        Raises:
            BrokerUnavailable: no answer in that time, or before the app was closed.
            QueueFull: the server's memory is full and the script needs some.
            ServerError: an answer that trying again will not change.
        """
        return await self.send(
            "EVALSHA", self.scripts[name].sha, len(keys), *keys, *arguments, patience=patience
        )

    async def send(self, *command: Any, patience: float | None = None) -> Any:
        """Sends a command until it is answered; arguments and errors as `run`."""
        patience = self.settings.operation_timeout if patience is None else patience
        deadline = self._loop.time() + patience
        attempt = 0
        problem: Exception | None = None
        while True:
            try:
                async with asyncio.timeout_at(None if patience == FOREVER else deadline):
                    pipe = self.line.current or await self.line.pipe()
                    return await pipe.call(*command)
            except ServerError as error:
                problem = error
                if error.verdict is Verdict.DENIED and patience == FOREVER and attempt == 0:
                    log.error("%s refuses: %s; trying on", self.address.safe_url, error)
                await self._mend(error, denied_is_final=patience != FOREVER)
            except (PipeBroken, BrokerUnavailable) as error:
                problem = error
            except TimeoutError as error:
                last = f"; before that: {problem}" if problem else ""
                raise BrokerUnavailable(
                    f"{self.address.safe_url} did not answer within {shown(patience)}{last}"
                ) from error
            attempt += 1
            rest = pause(attempt)
            if self.closing or self._loop.time() + rest > deadline:
                raise BrokerUnavailable(f"{self.address.safe_url}: {problem}") from problem
            await asyncio.sleep(rest)

    async def _mend(self, error: ServerError, *, denied_is_final: bool) -> None:
        """Does what an error asks for before the command is sent again; raises where that would not help."""
        match error.verdict:
            case Verdict.RETRY:
                pass
            case Verdict.LOAD:
                await self._load_scripts_again()
            case Verdict.RECONNECT:
                self.line.drop()
            case Verdict.DENIED if not denied_is_final:
                # Rights that come back hold for connections that are there; a password does not.
                if error.code != "NOPERM":
                    self.line.drop()
            case Verdict.FULL:
                text = f"the server at {self.address.safe_url} is out of memory ({error})"
                raise QueueFull(text) from error
            case _:
                raise error

    async def _load_scripts_again(self) -> None:
        try:
            await self.load_scripts()
        except (PipeBroken, AsyncQError) as error:
            log.debug("scripts could not be loaded (%s); again with the next try", error)

    # -- verbs on one job --

    async def look(self, ids: list[str], channel: str = "") -> list[Look]:
        """How jobs stand: the outcome of an ended one, the flags of a live one (and after a space when it
        expires, in ms), None for an unknown one.

        With a channel, a live job's waiters are joined by it in the same atomic step.
        """
        if self.shards.is_one:
            answers = await self.run("look", (), (self.shards[0].records, channel, *ids))
            return [standing(answer) for answer in answers]
        found = await self._look_in_shards(ids, channel)
        if missing := [id_ for id_, answer in found.items() if answer is None]:
            await self.relay.told(*self.shards)  # see _run_known
            found |= await self._look_in_shards(missing, channel)
        return [standing(found[id_]) for id_ in ids]

    async def _look_in_shards(self, ids: Sequence[str], channel: str) -> dict[str, bytes | None]:
        by_shard = self.shards.apportion(ids)
        looks = [
            self.run("look", (), (self.shards[shard].records, channel, *some))
            for shard, some in by_shard.items()
        ]
        found: dict[str, bytes | None] = {}
        for some, answers in zip(by_shard.values(), await asyncio.gather(*looks), strict=True):
            found.update(zip(some, answers, strict=True))
        return found

    async def _run_known(
        self,
        unknown: Any,
        name: str,
        keys: Sequence[str],
        arguments: Sequence[Any] = (),
        patience: float | None = None,
    ) -> Any:
        """As `run`, of a script about a job. If the job is unknown, asks again after all outboxes were told:
        a workflow is accepted before all of its jobs are where they belong, and whoever was to bring them
        there may have died.
        """
        answer = await self.run(name, keys, arguments, patience=patience)
        if answer == unknown and not self.shards.is_one:
            await self.relay.told(*self.shards, patience=patience)
            answer = await self.run(name, keys, arguments, patience=patience)
        return answer

    async def state(self, id: str, patience: float | None = None) -> wire.Ended | wire.Standing | None:
        """Where a job is: its outcome, or how it stands, or None if it is unknown. Patience as `run`."""
        keys = self.shards.of(id)
        answer = await self._run_known(
            [],
            "state",
            (keys.records + id, keys.latest + id),
            (keys.queues, GROUP, keys.messages + id),
            patience,
        )
        if not answer:
            return None
        if len(answer) == 1:
            return wire.decode_record(answer[0])
        flags, queue = answer[0].decode(), queue_of(answer[1].decode())
        if len(answer) == 2:
            return wire.Standing(flags, queue)
        if flags[0] == wire.RETRYING:
            return wire.Standing(flags, queue, retries=answer[2], failure=answer[3])
        if len(answer) == 3:
            return wire.Standing(flags, queue, answer[2].decode())
        _, _, entry, consumer, started, report = answer
        return wire.Standing(
            flags,
            queue,
            entry.decode(),
            worker=consumer.decode().rpartition("-")[0],  # its name has a token behind it
            started=started,
            report=wire.decode_report(report) if report else None,
        )

    async def message(self, id: str, patience: float | None = None) -> tuple[wire.Job, bytes] | None:
        """The job in the message of one that has not ended, and the values of those that it waited for; None
        if there is none that can be read. Patience as `run`.
        """
        keys = self.shards.of(id)
        answer = await self.run(
            "message", (keys.records + id, keys.messages + id), (keys.queues,), patience=patience
        )
        if not answer:
            return None
        try:
            return wire.decode_job(id, "", answer[0]), answer[1]
        except DecodeError as error:
            log.debug("the message of job %r could not be read: %s", id, error)
            return None

    async def revoke(self, id: str, *, mark: str, outcome: bytes, reason: str = "") -> str:
        """Ends a job that no worker has, marks one that a worker has: `revoked`, `signalled`, `ended` or
        `unknown`.
        """
        return await self._end_early(id, wire.REVOKED, outcome, mark, reason)

    async def expire(self, id: str) -> str:
        """Ends a job that no worker has because its time has passed: `revoked`, `running`, `ended` or
        `unknown`.
        """
        outcome = wire.encode_ended(wire.Ended(wire.EXPIRED, finished=int(time.time() * 1000)))
        return await self._end_early(id, wire.EXPIRED, outcome, wire.NOT_AGAIN)

    async def _end_early(self, id_: str, letter: str, outcome: bytes, mark: str, reason: str = "") -> str:
        ttl = self.result_ttl_ms(self.settings.result_ttl)
        keys = self.shards.of(id_)
        answer = await self._run_known(
            b"unknown",
            "revoke",
            (keys.records + id_, keys.delayed),
            (
                keys.space,
                id_,
                GROUP,
                letter,
                outcome,
                ttl,
                wire.PUSH_LIMIT,
                keys.marks,
                mark,
                DAY_MS,
                reason.encode("utf-8", "replace"),
            ),
        )
        text: str = answer.decode()
        if text == "revoked":
            await self.relay.told(keys)  # there may be no worker to tell those that wait for it elsewhere
        return text

    async def forget(self, id: str) -> str:
        """Forgets a result: `forgotten`, `flagged` (a live job's, when it ends) or `unknown`."""
        keys = self.shards.of(id)
        kept = (keys.records + id, keys.latest + id, keys.items + id, keys.places + id)
        answer = await self._run_known(b"unknown", "forget", kept)
        text: str = answer.decode()
        return text

    async def block(
        self, id: str, entry: str, mark: str, targets: Sequence[str], patience: float
    ) -> list[str]:
        """Notes for whom a running job waits; if one of them waits for it, the ids on the way from there to
        the job instead. Raises as `run`.

        Within a shard that is one step. Through several it is two, and two jobs that begin to wait for each
        other at the same time may both be told.
        """
        keys = self.shards.of(id)
        arguments = (keys.space, id, entry, mark, DAY_MS, MOST_FOLLOWED, *targets)
        answer = await self.run("block", (keys.records + id, keys.blocks + id), arguments, patience=patience)
        if answer or self.shards.is_one:
            return [one.decode() for one in answer]
        way = await way_back(self, id, targets, most=MOST_FOLLOWED, patience=patience)
        if way:
            self.unblock(id, entry, mark, targets)
        return way

    def unblock(self, id: str, entry: str, mark: str, targets: Sequence[str]) -> None:
        """The wait is over. Nobody waits for the answer. When the app is being closed, nothing is sent."""
        if self.closing:
            return
        edges = [f"{entry} {target} {mark}" for target in targets]
        task = self._loop.create_task(self._unblock(("SREM", self.shards.of(id).blocks + id, *edges)))
        self._unblocking.add(task)
        task.add_done_callback(self._unblocking.discard)

    async def _unblock(self, command: tuple[Any, ...]) -> None:
        try:
            await self.send(*command)
        except AsyncQError as error:
            log.debug("the end of a wait could not be told (%s); its note goes with its job's attempt", error)

    # -- streams --

    async def read_items(self, id: str, after: int, taken: int) -> tuple[Look, bool, list[tuple[int, bytes]]]:
        """What a generator has yielded behind a number, some 500 items or a megabyte at a time: how its job
        stands, as `look` says it; whether it has ended and this is all; and the items with their numbers.

        Args:
            id: the job.
            after: the number of the last item that is at hand; 0 for all.
            taken: the number of the last item that the reader's user took.

        Raises:
            BrokerUnavailable: no answer within the operation timeout.
        """
        command = self._read_command(id, after, READ_AT_ONCE, taken)
        found, *flat = await self.send(*command)
        items = [
            (int(entry.partition(b"-")[0]), data) for entry, data in zip(flat[::2], flat[1::2], strict=True)
        ]
        if found is None:
            return None, True, items
        if len(found) == 4:
            return found.decode(), False, items
        return wire.decode_record(found), True, items

    def note_place(self, id: str, taken: int) -> None:
        """Says how far a reader is. If it is lost on the way, the next one says it."""
        pipe = self.line.current
        if pipe is not None:
            pipe.send(self._read_command(id, taken, 0, taken), None)

    def _read_command(self, id_: str, after: int, count: int, taken: int) -> tuple[Any, ...]:
        keys = self.shards.of(id_)
        return (
            *("EVALSHA", self.scripts["read"].sha, 3),
            *(keys.records + id_, keys.items + id_, keys.places + id_),
            *(after, count, READ_BYTES, taken, keys.events + id_, READER_AWAY_MS, DAY_MS),
        )

    async def save_group(self, id: str, description: bytes) -> None:
        """Keeps the description of a group for as long as a result; again is anew."""
        ttl = self.result_ttl_ms(self.settings.result_ttl)
        await self.send("SET", self.shards.of(id).groups + id, description, "PX", ttl)

    async def restore_group(self, id: str) -> bytes | None:
        """The description that was saved, or None."""
        # The scripts need MGET anyway: one right less than GET.
        found: list[bytes | None] = await self.send("MGET", self.shards.of(id).groups + id)
        return found[0]

    async def delete_group(self, id: str) -> None:
        """Drops the description. Twice is once."""
        await self.send("DEL", self.shards.of(id).groups + id)

    async def listened_to(self, queue: str) -> bool:
        """Whether a living worker reads from a queue. Each reads from it in all shards, and from all levels;
        one that is busy with a high level of one shard may not have come to the others yet.
        """
        for keys in self.shards:
            levels, listened = await self._listened_to(keys, queue)
            names = [] if listened else [f"{queue}{LEVEL}{level.decode()}" for level in levels]
            if listened or any([(await self._listened_to(keys, name))[1] for name in names]):
                return True
        return False

    async def _listened_to(self, keys: Keys, name: str) -> tuple[list[bytes], bool]:
        """The levels of priority of a queue that is called so, and whether it is read from."""
        try:
            beats, levels, (readers, _) = await self.run(
                "census", (keys.beats, keys.stream(name)), (GROUP, keys.levels, name)
            )
        except ServerError as error:
            if error.verdict is Verdict.NO_GROUP or "no such key" in str(error):
                return [], False
            raise
        return levels, bool({reader for reader, _ in readers} & set(beats[::2]))

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
        pipe = await self.line.pipe()
        info = (await pipe.call("INFO", "server")).decode()
        fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        name = fields.get("server_name", "redis")
        return f"{name} {fields.get(f'{name}_version', fields.get('redis_version', '?'))}"

    @staticmethod
    def result_ttl_ms(seconds: float) -> int:
        """A result's time to live. Nothing about a job is deleted in under a minute: an enqueue sent again
        late must find it.
        """
        return max(TOMBSTONE_MS, round(seconds * 1000))
