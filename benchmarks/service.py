"""Scenarios of a web service: one uvicorn process whose endpoint awaits a job, under open load.

Latency counts from the time when a request was due to the last byte of its answer, so client, site, server
and worker are all in it. They share the cores of this machine.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import redis
import server
from arrivals import arriving, poisson
from curves import curve
from histogram import Histogram
from load import Ladder
from scenario import Measured, Scenario
from system import HERE, System, start_worker, worker

CONNECTIONS = 200
"""How many requests the client has in flight at most."""
DROPPED_WITHIN = 10.0
"""Seconds that the site and the worker have to drop what clients gave up."""


@dataclass(frozen=True)
class Service(Scenario):
    """Raises the rate of requests step by step, as `Ladder` does with jobs."""

    rates: Sequence[int]
    seconds: float
    warmup: float = 0.5
    ours = True

    async def run(self, system: System, url: str) -> Measured:
        async with AsyncExitStack() as stack:
            if system.name == "asyncq":  # the other site needs no worker
                await stack.enter_async_context(worker(system, url))
            client = await stack.enter_async_context(site(system.name, url))
            ladder = Ladder(self.rates, self.seconds, self.warmup, key="service")
            measured = await ladder.climb(client)
        for quantile in ("p50", "p99"):
            points = [
                (rate, measured.figures[f"service{rate}.{quantile}_ms"])
                for rate in self.rates
                if f"service{rate}.{quantile}_ms" in measured.figures
            ]
            title = f"web service, one uvicorn process: {quantile} from due time to answer"
            measured.curves.append(curve(f"service.{quantile}", title, "requests/s", "ms", points))
        return measured


@dataclass(frozen=True)
class ServiceFaults(Scenario):
    """Measures what clients that go away leave in the site, and what a worker's restart costs its clients.

    Args:
        aborted: how many requests are given up by their clients, each while its job runs.
        rate: of requests while one of two workers is stopped and another one is started.
        seconds: how long these requests come.
    """

    aborted: int
    rate: int
    seconds: float
    features = True
    once = True

    async def run(self, system: System, url: str) -> Measured:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(worker(system, url))
            client = await stack.enter_async_context(site(system.name, url))
            figures = await self._abort(client, url)
            figures |= await self._restart(client, system, url)
        return Measured(figures)

    async def _abort(self, client: "SiteClient", url: str) -> dict[str, float]:
        await client.value(1)
        before = await client.get("/left")
        waves = [min(CONNECTIONS, self.aborted - first) for first in range(0, self.aborted, CONNECTIONS)]
        with redis.Redis.from_url(url) as observer:

            async def more_than_before() -> dict[str, int]:
                # A job that has ended has no entry in a stream any more.
                jobs = sum(observer.xlen(key) for key in observer.scan_iter(_type="stream"))
                now = await client.get("/left")
                return {"jobs": jobs} | {kind: max(0, now[kind] - before[kind]) for kind in before}

            for size in waves:
                await client.abort("/nap?seconds=600", size)
            with suppress(TimeoutError):  # what is still there is in the figures
                async with asyncio.timeout(DROPPED_WITHIN):
                    while any((await more_than_before()).values()):  # noqa: ASYNC110  another process has them
                        await asyncio.sleep(0.05)
            left = await more_than_before()
        return {f"service_faults.{kind}_left": float(count) for kind, count in left.items()}

    async def _restart(self, client: "SiteClient", system: System, url: str) -> dict[str, float]:
        histogram, statuses, pending = Histogram(), [], set()

        async def one(due: int) -> None:
            statuses.append(await client.status(f"/echo/{due}"))
            histogram.record(time.monotonic_ns() - due)

        def arrive(due: int) -> None:
            pending.add(asyncio.create_task(one(due)))

        async with worker(system, url):
            second = start_worker(system, url)
            try:
                with arriving(poisson(self.rate, int(self.rate * self.seconds)), arrive) as last:
                    await asyncio.sleep(self.seconds / 4)
                    await asyncio.to_thread(server.stop, second)
                    second = start_worker(system, url)
                    await asyncio.sleep(max(0.0, (last - time.monotonic_ns()) / 1e9) + 0.05)
                await asyncio.gather(*pending)
            finally:
                server.stop(second)
        return {
            "service_faults.restart_errors": float(sum(status >= 500 for status in statuses)),
            "service_faults.restart_p99_ms": histogram.ms(0.99),
        }


class SiteClient:
    """A client of the site, with the interface of a system's client: its `delay` is free, and `value` makes
    the request.

    Args:
        http: the session of aiohttp.
        port: of the site on this machine.
    """

    def __init__(self, http: Any, port: int) -> None:
        self._http = http
        self._port = port
        self._site = f"http://127.0.0.1:{port}"

    async def delay(self, value: Any = 0, task: str = "echo") -> Any:  # noqa: ARG002  what the interface has
        return value

    async def value(self, handle: Any) -> object:
        return await self.get(f"/echo/{handle}")

    async def get(self, path: str) -> Any:
        """Returns the JSON of an answer.

        Raises:
            RuntimeError: its status is not 200.
        """
        async with self._http.get(f"{self._site}{path}") as answer:
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {(await answer.text())[:200]}")
            return await answer.json()

    async def status(self, path: str) -> int:
        """Returns the status of an answer."""
        async with self._http.get(f"{self._site}{path}") as answer:
            await answer.read()
            return int(answer.status)

    async def abort(self, path: str, count: int) -> None:
        """Sends so many requests, each over a connection of its own, and closes the connections half a second
        later.
        """
        request = f"GET {path} HTTP/1.1\r\nHost: site\r\n\r\n".encode()
        pairs = await asyncio.gather(
            *(asyncio.open_connection("127.0.0.1", self._port) for _ in range(count))
        )
        for _, writer in pairs:
            writer.write(request)
        await asyncio.sleep(0.5)
        for _, writer in pairs:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in pairs), return_exceptions=True)


@asynccontextmanager
async def site(system: str, url: str) -> AsyncIterator[SiteClient]:
    """Runs the site of a system for the block. Returns when it answers."""
    import aiohttp  # here, because the environments of the peers do not have it

    port = server.free_port()
    argv = [sys.executable, str(HERE / "service_site.py"), system, url, str(port)]
    process = server.spawn(argv, env={**os.environ, "PYTHONPATH": str(HERE)}, output=sys.stderr.fileno())
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as http:
            client = SiteClient(http, port)
            end = time.monotonic() + 30
            while True:
                with suppress(aiohttp.ClientConnectionError):
                    await client.value(1)
                    break
                if time.monotonic() > end or process.poll() is not None:
                    raise TimeoutError("the site does not answer")
                await asyncio.sleep(0.05)
            yield client
    finally:
        server.stop(process)
