"""The bare floor: a client and a worker that do the same steps on the same server, without any features.

It does only what every task system on Redis streams with stored and pushed results must do: raw RESP over a
bare asyncio protocol and hiredis's reader, everything pipelined. It knows one task name, and has no retries,
deadlines, leases, errors or reconnection. It shows what the features of a real system cost.

    enqueue   XADD stream * j "<id> <channel> <task> <value>"  +  SET j:<id> queued
    take      XREADGROUP COUNT 100 BLOCK 5000, sent again as soon as it is answered
    run       one asyncio task a job
    finish    per loop turn: SET j:<id> <outcome> EX 3600 a job; one XACK, one XDEL; one PUBLISH a client
    wait      the client's subscription: the push carries the outcomes

Run as a script it is the worker: `python floor.py redis://127.0.0.1:6379/0`.
"""

import asyncio
import os
import re
import signal
import sys
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import repeat
from typing import Any

import bodies
import hiredis
import uvloop

STREAM, GROUP, CONSUMER = b"floor", b"workers", b"%d" % os.getpid()
RESULT_TTL = b"3600"
BATCH = b"100"
pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command  # its stub allows one word only


class Connection(asyncio.Protocol):
    """A connection. The requests of one loop iteration are sent in one write. The replies come in order."""

    def __init__(self, on_push: Callable[[list[bytes]], None] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any] | None] = deque()
        self._corked: list[bytes] = []
        self._on_push = on_push
        self._transport: asyncio.Transport

    @classmethod
    async def open(cls, url: str, on_push: Callable[[list[bytes]], None] | None = None) -> "Connection":
        """Connects to `redis://host:port/0`."""
        host, port = re.findall(r"//([^:/]+):(\d+)", url)[0]
        loop = asyncio.get_running_loop()
        connection = cls(on_push)
        connection._transport, _ = await loop.create_connection(lambda: connection, host, int(port))
        return connection

    def request(self, commands: bytes, replies: int = 1) -> asyncio.Future[Any]:
        """Sends some commands. Returns the future of the last reply."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.extend(repeat(None, replies - 1))
        self._waiting.append(future)
        if not self._corked:
            self._loop.call_soon(self._flush)
        self._corked.append(commands)
        return future

    def close(self) -> None:
        self._transport.close()

    def _flush(self) -> None:
        self._transport.write(b"".join(self._corked))
        self._corked.clear()

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        while (reply := reader.gets()) is not False:
            if self._on_push and not waiting:
                self._on_push(reply)
                continue
            future = waiting.popleft()
            if future is None:
                if isinstance(reply, hiredis.ReplyError):
                    raise reply  # the loop closes the connection: a floor does not recover
            elif isinstance(reply, hiredis.ReplyError):
                future.set_exception(reply)
            elif not future.cancelled():
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in self._waiting:
            if future is not None and not future.done():
                future.set_exception(exc or ConnectionResetError("the connection was closed"))


class Handle:
    """A job that was enqueued here, and the future of its outcome."""

    __slots__ = ("id", "outcome")

    def __init__(self, job_id: str, outcome: asyncio.Future[bytes]) -> None:
        self.id = job_id
        self.outcome = outcome


class Client:
    """Enqueues jobs and waits for them, over two connections."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._commands: Connection
        self._channel = b"floor:" + os.urandom(8).hex().encode()
        self._outcomes: dict[bytes, asyncio.Future[bytes]] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator["Client"]:
        """Connects, and subscribes before the first job can be enqueued."""
        client = cls()
        client._commands = await Connection.open(url)
        pushes = await Connection.open(url, client._on_push)
        await pushes.request(pack(("SUBSCRIBE", client._channel)))
        try:
            yield client
        finally:
            client._commands.close()
            pushes.close()

    async def delay(self, value: int | str = 0, task: str = "echo") -> Handle:
        """Enqueues one job."""
        handle, commands = self._job(value, task)
        await self._commands.request(commands, replies=2)
        return handle

    async def map(self, values: Sequence[int | str], task: str = "echo") -> Sequence[Handle]:
        """Enqueues a batch in one write."""
        jobs = [self._job(value, task) for value in values]
        await self._commands.request(b"".join([commands for _, commands in jobs]), replies=2 * len(jobs))
        return [handle for handle, _ in jobs]

    async def value(self, handle: Handle) -> int | str:
        """Waits for the push that carries the job's outcome."""
        return _decode(await handle.outcome)

    async def result(self, job_id: str) -> object:
        """Reads the record."""
        from system import MISSING  # here, because the worker does without the harness

        record = await self._commands.request(pack(("GET", b"j:" + job_id.encode())))
        return MISSING if record in {None, b"queued"} else _decode(record)

    async def stored(self, job_ids: Sequence[str]) -> int:
        """Reads the records, and returns how many of them are results."""
        records = await self._commands.request(pack(("MGET", *(b"j:" + each.encode() for each in job_ids))))
        return sum(record not in {None, b"queued"} for record in records)

    def _job(self, value: int | str, task: str) -> tuple[Handle, bytes]:
        job_id = os.urandom(12).hex()
        key = job_id.encode()
        outcome = self._outcomes[key] = self._loop.create_future()
        message = b"%b %b %b %b" % (key, self._channel, task.encode(), str(value).encode())
        commands = pack(("XADD", STREAM, b"*", b"j", message)) + pack(("SET", b"j:" + key, b"queued"))
        return Handle(job_id, outcome), commands

    def _on_push(self, push: list[bytes]) -> None:
        outcomes = self._outcomes
        for line in push[2].split(b"\n"):
            job_id, _, outcome = line.partition(b" ")
            outcomes.pop(job_id).set_result(outcome)


def _decode(text: bytes) -> int | str:
    return int(text) if text.isdigit() else text.decode()


TASKS = {name.encode(): getattr(bodies, name) for name in bodies.NAMES}


class Worker:
    """Reads batches, runs each job as an asyncio task, and finishes the jobs of one loop turn in
    one write.
    """

    def __init__(self, reads: Connection, commands: Connection) -> None:
        self._loop = asyncio.get_running_loop()
        self._reads = reads
        self._commands = commands
        self._running: set[asyncio.Task[None]] = set()
        self._finished: list[tuple[bytes, bytes, bytes, bytes]] = []  # entry, job, reply channel, outcome
        self._read = pack(
            (
                "XREADGROUP",
                "GROUP",
                GROUP,
                CONSUMER,
                "COUNT",
                BATCH,
                "BLOCK",
                b"5000",
                "STREAMS",
                STREAM,
                b">",
            )
        )

    async def run(self) -> None:
        """Runs jobs for ever."""
        next_batch = self._reads.request(self._read)
        while True:
            reply = await next_batch
            next_batch = self._reads.request(self._read)  # the server reads on while this batch runs
            for entry_id, fields in reply[0][1] if reply else ():
                task = self._loop.create_task(self._one(entry_id, fields[1]))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _one(self, entry_id: bytes, message: bytes) -> None:
        job_id, channel, name, value = message.split(b" ", 3)
        outcome = str(await TASKS[name](_decode(value))).encode()
        if not self._finished:
            self._loop.call_soon(self._finish)
        self._finished.append((entry_id, job_id, channel, outcome))

    def _finish(self) -> None:
        batch, self._finished = self._finished, []
        entries = [entry_id for entry_id, *_ in batch]
        pushes: defaultdict[bytes, list[bytes]] = defaultdict(list)
        out = []
        for _, job_id, channel, outcome in batch:
            out.append(pack(("SET", b"j:" + job_id, outcome, b"EX", RESULT_TTL)))
            pushes[channel].append(job_id + b" " + outcome)
        out.append(pack(("XACK", STREAM, GROUP, *entries)))
        out.append(pack(("XDEL", STREAM, *entries)))
        out.extend(pack(("PUBLISH", channel, b"\n".join(lines))) for channel, lines in pushes.items())
        self._commands.request(b"".join(out), replies=len(out))


async def work(url: str) -> None:
    """Runs jobs until SIGTERM."""
    reads, commands = await Connection.open(url), await Connection.open(url)
    try:
        await commands.request(pack(("XGROUP", "CREATE", STREAM, GROUP, b"0", "MKSTREAM")))
    except hiredis.ReplyError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise
    working = asyncio.current_task()
    assert working is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    await Worker(reads, commands).run()


if __name__ == "__main__":
    try:
        uvloop.run(work(sys.argv[1]))
    except asyncio.CancelledError:
        sys.exit(0)  # SIGTERM
