"""Runs jobs and counts what one of them costs: commands, bytes, reads and writes, and Python's instructions.

    python -m helpers.counted PATH [--functions]

PATH is the unix socket of a server that nobody else uses. The program prints the figures of one job as JSON,
or the functions that execute most instructions. A client and a worker run in this process, on loops that take
turns (`helpers.lockstep`), so each run counts the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import re
import socket
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import hiredis
import redis

from asyncq import AsyncQ, Middleware, Worker
from asyncq.broker.entry_reader import EntryReader
from asyncq.worker import attempt, fetcher
from asyncq.worker.body_times import BodyTimes
from helpers import lockstep
from helpers.instructions import Instructions, Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from asyncq import AsyncResult

JOBS = 200
"""How many jobs are counted in each way."""
AT_ONCE = 100
"""How many jobs a worker runs at the same time, and how many callers there are."""
NOT_COUNTED = {"client|id", "client|setinfo", "client|setname", "hello", "info", "ping", "select"}
"""Commands that are not counted: this program, and each new connection, sends them."""
BLOCK_MS = 3_600_000
"""How long an idle read of the worker waits at the server. A worker's own five seconds go by the server's
clock, which nobody can stop: on a busy machine a read would end in the middle of a count."""
_MOST_FUNCTIONS = 25
_ENTRY = re.compile(rb"(\d{13})-\d+")
"""The id of an entry: a time in ms, and a number within it, which has more digits on a fast machine."""


def counted_size(data: bytes) -> int:
    """Returns how many bytes some data has, with one digit for the number within each id of an entry."""
    return len(_ENTRY.sub(rb"\1-0", data))


class Side:
    """The client or the worker, and what it was seen to do.

    Attributes:
        loop: its loop.
        instructions: what it has executed.
        seen: how many commands it has sent, and how often it wrote and read.
        sent, received: what it has sent and received, in parts.
    """

    def __init__(self, loop: lockstep.Loop) -> None:
        self.loop = loop
        self.instructions = Instructions()
        self.seen: Counter[str] = Counter()
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        loop.during_turn = self._turn

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        CountedSocket.side = self
        with self.instructions.counting():
            yield
        CountedSocket.side = None

    def per_job(self, jobs: int) -> dict[str, float]:
        """Returns what was counted, for each of some jobs."""
        counts = {
            "instructions": self.instructions.total(Origin.ASYNCQ),
            "instructions_of_libraries": self.instructions.total(Origin.LIBRARY),
            "bytes_sent": counted_size(b"".join(self.sent)),
            "bytes_received": counted_size(b"".join(self.received)),
            **self.seen,
        }
        return {name: count / jobs for name, count in counts.items() if count}

    def clear(self) -> None:
        """Counts from 0 again."""
        self.instructions.clear()
        self.seen.clear()
        self.sent.clear()
        self.received.clear()


class CountedSocket(socket.socket):
    """A socket that counts for the side that has its turn."""

    side: ClassVar[Side | None] = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._sent = hiredis.Reader()

    def send(self, data: Any, *flags: int) -> int:
        count = super().send(data, *flags)
        self._count_sent(bytes(data[:count]))
        return count

    def sendmsg(self, buffers: Iterable[Any], *others: Any) -> int:
        parts = [bytes(part) for part in buffers]
        count = super().sendmsg(parts, *others)
        self._count_sent(b"".join(parts)[:count])
        return count

    def _count_sent(self, data: bytes) -> None:
        self._sent.feed(data)
        commands = 0
        while command := self._sent.gets():
            assert b"BLOCK" not in command or b"%d" % BLOCK_MS in command, command
            commands += 1
        if self.side is not None:
            seen = self.side.seen
            seen["writes"] += 1
            self.side.sent.append(data)
            seen["commands_sent"] += commands

    def recv(self, size: int, *flags: int) -> bytes:
        data = super().recv(size, *flags)
        if self.side is not None:
            seen = self.side.seen
            seen["reads"] += 1
            self.side.received.append(data)
        return data


class ClientAndWorker:
    """A client and a worker of one task, and their server.

    Args:
        path: of the server's unix socket.
    """

    def __init__(self, path: str) -> None:
        self._url = f"unix://{path}"
        self._observer = redis.Redis.from_url(self._url)
        self._server = lockstep.Server(path)
        self.client, self.worker = (Side(lockstep.Loop(self._until_answered)) for _ in range(2))
        self._sent = 0
        self._apps = [self._new_app() for _ in range(2)]
        self.app = self._apps[0]
        self.add = self.app.tasks["add"]

    def _new_app(self) -> AsyncQ:
        # The heartbeat and the watch go by the clock. They have threads of their own.
        app = AsyncQ(self._url, namespace="n", lease=3600, stall_warning=0)

        @app.task(name="add")
        async def add(x: int, y: int) -> int:
            return x + y

        return app

    def add_middleware(self) -> None:
        """Puts a middleware around each enqueue and each attempt from now on."""
        for app in self._apps:
            app.add_middleware(Tenant())

    def _until_answered(self) -> None:
        sent = sum(len(part) for side in (self.client, self.worker) for part in side.sent)
        self._server.has_answered(sent - self._sent)
        self._sent = sent

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Runs client and worker for the time of the block."""
        options: Any = EntryReader.read.__kwdefaults__
        options["timeout"] = fetcher.BLOCK_MS = BLOCK_MS
        # How many jobs it fetches ahead goes by the clock, too: in no time at all they are as many as may be.
        times: Any = BodyTimes.__init__
        times.__defaults__ = (lambda: 0.0,)
        attempt.perf_counter = lambda: 1.0  # type: ignore[attr-defined]
        worker = Worker(self._apps[1], concurrency=AT_ONCE, name="w")
        # The loops have got their own sockets already.
        socket.socket = CountedSocket  # type: ignore[misc]
        lockstep.run(self.client.loop, (), self.app.__aenter__())
        lockstep.run(self.worker.loop, (self.client.loop,), worker.__aenter__())
        yield
        lockstep.run(self.worker.loop, (self.client.loop,), worker.__aexit__(None, None, None))
        lockstep.run(self.client.loop, (), self.app.__aexit__(None, None, None))
        self._observer.close()
        self._server.close()

    def run(self, main: Coroutine[Any, Any, Any], *, alone: bool = False) -> Any:
        """Runs a coroutine on the client's loop. The worker does nothing meanwhile if it is `alone`."""
        return lockstep.run(self.client.loop, () if alone else (self.worker.loop,), main)

    def counted(self, main: Coroutine[Any, Any, Any], *, alone: bool = False) -> tuple[dict[str, float], Any]:
        """Runs a coroutine like `run`. Returns what each of its jobs costs, and its result."""
        sides = {"client": self.client} if alone else {"client": self.client, "worker": self.worker}
        for side in (self.client, self.worker):
            side.clear()
        self._sent = 0
        before = self._commands()
        result = self.run(main, alone=alone)
        commands = self._commands() - before
        figures = {
            "server.commands_run": commands.total() / JOBS,
            **{f"server.commands_run.{name}": count / JOBS for name, count in commands.items()},
        }
        for name, side in sides.items():
            figures |= {f"{name}.{figure}": count for figure, count in side.per_job(JOBS).items()}
        return figures, result

    def _commands(self) -> Counter[str]:
        """Returns how often the server has run each command, also inside scripts."""
        stats: dict[str, Any] = self._observer.info("commandstats")
        calls = {name.removeprefix("cmdstat_"): int(row["calls"]) for name, row in stats.items()}
        return Counter({name: count for name, count in calls.items() if name not in NOT_COUNTED})


class Tenant(Middleware):
    """A middleware as small as one can be that does something."""

    async def on_enqueue(self, call: Any, call_next: Any) -> Any:
        call.headers["tenant"] = "a"
        return await call_next(call)

    async def on_run(self, job: Any, call_next: Any) -> Any:
        assert job.headers["tenant"] == "a"
        return await call_next(job)


# -- the ways in which jobs are run --


async def lone(add: Any, jobs: int) -> None:
    """Runs one job at a time."""
    for _ in range(jobs):
        assert await (await add.delay(1, 2)).get() == 3


async def batched(add: Any, jobs: int) -> None:
    """Runs the jobs of many callers at a time."""
    for _ in range(jobs // AT_ONCE):
        assert set(await asyncio.gather(*[add.call(1, 2) for _ in range(AT_ONCE)])) == {3}


async def mapped(add: Any, jobs: int) -> Any:
    """Enqueues all jobs in one call."""
    return await add.map([(1, 2)] * jobs)


async def got(results: Any) -> list[str]:
    """Waits for all jobs in one call. Returns their ids."""
    assert set(await results.get()) == {3}
    return [result.id for result in results]


async def fetched(handle: Callable[[str], AsyncResult[int]], ids: list[str]) -> None:
    """Fetches the results of ended jobs, one at a time."""
    for id_ in ids:
        assert await handle(id_).get() == 3


def ways(both: ClientAndWorker) -> Iterator[tuple[str, dict[str, float]]]:
    """Runs jobs in each way. Yields the name of the way, and what one job costs."""
    # Each way is run once before it is counted: what is made once, or is learned, is in no figure.
    add, handle = both.add, both.app.AsyncResult
    for way, run in (("lone", lone), ("batched", batched)):
        both.run(run(add, AT_ONCE))
        yield way, both.counted(run(add, JOBS))[0]
    both.run(fetched(handle, both.run(got(both.run(mapped(add, AT_ONCE))))))
    # The worker reads the first of these jobs only when all of them are in the queue.
    figures, results = both.counted(mapped(add, JOBS), alone=True)
    yield "map", figures
    figures, ids = both.counted(got(results))
    yield "get", figures
    del results  # else the handles would know the values
    yield "get_by_id", both.counted(fetched(handle, ids), alone=True)[0]
    both.add_middleware()
    both.run(batched(add, AT_ONCE))
    yield "middleware", both.counted(batched(add, JOBS))[0]


def main(path: str, *options: str) -> None:
    by_function = options == ("--functions",)
    random.seed(0)  # when the next poll is due decides how asyncio sorts its timers
    both = ClientAndWorker(path)
    figures = {}
    with both.running():
        gc.collect()
        gc.disable()  # a collection may call functions, and when it comes depends on all that there is
        for way, counts in ways(both):
            figures |= {f"{way}.{name}": round(count, 3) for name, count in counts.items()}
            if by_function:
                print_functions(way, both)
    if not by_function:
        json.dump(figures, sys.stdout)


def print_functions(way: str, both: ClientAndWorker) -> None:
    """Prints where the instructions of a way went, for both sides."""
    for name, side in (("client", both.client), ("worker", both.worker)):
        ours, libraries = (
            side.instructions.total(origin) / JOBS for origin in (Origin.ASYNCQ, Origin.LIBRARY)
        )
        if not ours:
            continue
        lines = [
            f"{way}, {name}: {ours:,.1f} instructions a job in asyncq, {libraries:,.1f} in libraries",
            "executed/job  entered/job  function",
            *(
                f"{function.executed / JOBS:12.1f} {function.entered / JOBS:12.2f}  {function.name}"
                for function in side.instructions.functions()[:_MOST_FUNCTIONS]
            ),
        ]
        sys.stdout.write("\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
