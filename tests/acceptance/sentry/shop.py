"""A program that uses Sentry: it runs jobs of every end, and prints what would have been sent, as JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import sentry_sdk
from sentry_sdk.transport import Transport

import asyncq
from asyncq import AsyncQ, Retry, RetryLater, Worker
from asyncq.integrations.sentry import AsyncqIntegration

early = AsyncQ(lease=2)  # before Sentry is set up


class Kept(Transport):
    """Keeps what would be sent."""

    items: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012  one for all

    def capture_envelope(self, envelope: Any) -> None:
        Kept.items += [
            (item.type, item.payload.json) for item in envelope.items if item.type in {"event", "transaction"}
        ]


sentry_sdk.init(
    dsn="http://key@127.0.0.1:1/1",
    transport=Kept,
    traces_sample_rate=1.0,
    integrations=[AsyncqIntegration()],
)
app = AsyncQ(lease=2, unknown_task_wait=0)


@early.task(name="early")
async def early_task() -> None:
    raise KeyError("early")


@app.task(name="fails")
async def fails(amount: int, *, currency: str) -> None:
    sentry_sdk.set_tag("shop.amount", amount)
    sentry_sdk.add_breadcrumb(message=f"amount {amount}")
    await asyncio.sleep(0.05)  # beside the other jobs
    raise ValueError(f"{amount} {currency} are too few")


@app.task(name="gives up", retry=Retry(max_retries=1, backoff=0.01))
async def gives_up() -> None:
    raise OSError("again")


@app.task(name="second", retry=Retry(max_retries=1, backoff=0.01))
def second() -> int:
    if asyncq.current().attempt == 1:
        raise OSError("only the first")
    return 2


@app.task(name="later")
async def later() -> int:
    if asyncq.current().attempt == 1:
        raise RetryLater(countdown=0.01)
    return 1


@app.task(name="no value")
async def no_value() -> Any:
    return object()


@app.task(name="hold")
async def hold() -> None:
    await asyncio.Event().wait()


@app.task(name="parent")
async def parent() -> None:
    await later.delay()


async def main() -> None:
    async with app, Worker(app):
        ends = [
            await fails.delay(1, currency="EUR"),
            await fails.delay(2, currency="USD"),
            *[await task.delay() for task in (gives_up, second, later, no_value)],
            await app.send("no such task"),
        ]
        held = await hold.delay()
        with sentry_sdk.start_transaction(op="http.server", name="request"):
            ends.append(await parent.delay())
            # The request goes on while the jobs fail: their events must not have its name.
            for result in ends:
                await result.outcome(timeout=20)
        while await held.refresh() != "STARTED":  # noqa: ASYNC110  asks the server
            await asyncio.sleep(0.01)
        await held.revoke(terminate=True, wait=True)
        integration = sentry_sdk.get_client().get_integration(AsyncqIntegration)
        assert integration is not None
        integration.send_arguments = True
        await (await fails.delay(3, currency="GBP")).outcome(timeout=20)
    async with early, Worker(early):
        await (await early_task.delay()).outcome(timeout=20)
    print(json.dumps(Kept.items))  # noqa: T201  what this program is for


asyncio.run(main())
