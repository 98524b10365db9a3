"""More than one value: a workflow, what a task reports while it runs, a stream, one job for many calls.

Run it with `python examples/whole_result.py`.
"""

import asyncio
from collections.abc import AsyncIterator

import asyncq
from asyncq import AsyncQ, Worker, chord, group

app = AsyncQ(namespace="whole-result")


@app.task
async def length(word: str) -> int:
    return len(word)


@app.task
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
async def double(number: int) -> int:
    return 2 * number


@app.task
async def copy(files: int) -> str:
    for done in range(1, files + 1):
        await asyncq.current().progress(done, files)
    return "copied"


@app.task
async def countdown(start: int) -> AsyncIterator[int]:
    for number in range(start, 0, -1):
        yield number


async def main() -> None:
    async with app, Worker(app):
        flow = chord(group(length.s(word) for word in ("one", "three", "five")), total.s()) | double.s()
        print(f"twice the length of all words: {await (await flow.delay()).get(timeout=10)}")

        copying = await copy.delay(3)
        last = [event.info async for event in copying.events(timeout=10)][-1]
        print(f"the last event is the value: {last}")

        counting = await countdown.delay(3)
        print("counting:", *[number async for number in counting.stream()])

        calls = [double.options(key="order 17").delay(21) for _ in range(100)]
        handles = await asyncio.gather(*calls)
        print(f"{len(handles)} calls, {len(set(handles))} job, value {await handles[0]}")

        broken = length.s(5) | double.s()
        try:
            await (await broken.delay()).get(timeout=10)
        except TypeError as error:
            print(f"a failed step fails what waits for it: {error}")


asyncio.run(main())

# Output:
# twice the length of all words: 24
# the last event is the value: copied
# counting: 3 2 1
# 100 calls, 1 job, value 42
# a failed step fails what waits for it: object of type 'int' has no len()
