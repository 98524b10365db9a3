"""Signed messages: with a secret, what somebody else writes at the server neither runs nor arrives.

Run it with `python examples/signed.py`. In a real program the secret is in the environment, and not in the
code: `ASYNCQ_SECRETS`. docs/howto/security.md says who may do what, without and with secrets.
"""

import asyncio
import logging

from asyncq import AsyncQ, DecodeError, Worker

app = AsyncQ(namespace="signed", secrets=["a secret of sixteen bytes or more"])
neighbour = AsyncQ(namespace="signed")  # somebody who has the URL of the server, and not the secret


@app.task(name="shop.pay")
async def pay(cents: int) -> str:
    return f"paid {cents}"


async def main() -> None:
    logging.getLogger("asyncq").setLevel(logging.CRITICAL)  # the worker logs each job that it refuses
    async with app, Worker(app), neighbour:
        result = await pay.delay(5)
        print("signed:", await result)

        forged = await neighbour.send("shop.pay", (1_000_000,))
        try:
            print(await app.AsyncResult(forged.id))
        except DecodeError:
            print("not signed: it never ran")
        for letter in await app.control.dead.list():
            print("kept as a dead letter:", letter.reason)

        try:
            print(await neighbour.AsyncResult(result.id))
        except DecodeError:
            print("without the secret, nobody takes a value for one of ours")


asyncio.run(main())

# Output:
# signed: paid 5
# not signed: it never ran
# kept as a dead letter: not signed
# without the secret, nobody takes a value for one of ours
