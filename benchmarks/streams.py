"""Scenario of streams: the items of a generator, on their way to a reader in another process."""

import statistics
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns

from scenario import Measured, Scenario
from system import System, worker


@dataclass(frozen=True)
class OneStream(Scenario):
    """Measures the time of a single item from its `yield` to the reader's next step, by the clock that both
    processes share. Also measures how many small items go through one stream a second, from `delay` to the
    last.
    """

    ticks: int
    items: int
    rounds: int
    features = True

    async def run(self, system: System, url: str) -> Measured:
        rates = []
        async with worker(system, url), system.open(url):
            from adapters.asyncq_features import numbers, ticks

            result = await ticks.delay(self.ticks, 0.005)
            delays = [perf_counter_ns() - yielded async for yielded in result.stream()]
            for _ in range(self.rounds):
                start = perf_counter()
                result = await numbers.delay(self.items)
                seen = 0
                async for number in result.stream():
                    seen += 1
                    if number != seen:
                        raise RuntimeError(f"item {number} came as number {seen}")
                if seen != self.items:
                    raise RuntimeError(f"{seen} of {self.items} items came")
                rates.append(seen / (perf_counter() - start))
        return Measured(
            {
                "stream.first_item_ms_p50": round(statistics.median(delays) / 1e6, 3),
                "stream.items_per_s": round(statistics.median(rates)),
            }
        )
