"""The life of a job, step by step: launch it, check it, wait for it, see it fail, revoke it, forget it.

Run it with `python examples/tree.py`. `tree_sync.py` does the same in blocking code.
"""

import asyncio

from tasks import add, app, divide, slow_add

from asyncq import ResultNotFound, ResultTimeout, TaskRevoked, Worker


async def look_and_wait() -> None:
    result = await slow_add.delay(4, 4, seconds=0.5)
    print("ready at once:", await result.ready())
    while not await result.ready():  # noqa: ASYNC110  the example shows polling
        await asyncio.sleep(0.05)
    print("ready later:", await result.ready(), result.state, result.result)

    # The server pushes the outcome to this process, so a loop over the property ends, too, though it sends no
    # requests.
    result = await slow_add.delay(2, 3, seconds=0.1)
    while result.state != "SUCCESS":  # noqa: ASYNC110  the example shows polling
        await asyncio.sleep(0.02)
    print("polled the property:", result.result)


async def wait_with_a_limit() -> None:
    result = await slow_add.delay(1, 1, seconds=0.5)
    try:
        await result.get(timeout=0.1)
    except ResultTimeout:
        print("not within 0.1 s; the job goes on")
    print("a second wait:", await result.get(timeout=10))


async def see_it_fail() -> None:
    result = await divide.delay(1, 0)
    try:
        await result.get(timeout=10)
    except ZeroDivisionError as error:
        print("raised here:", repr(error))
    print(result.state, "| failed:", await result.failed(), "| successful:", await result.successful())
    print("without raising:", repr(await result.get(propagate=False)))
    *_, where, what = (result.traceback or "").split("\n")[:-1]
    print("the worker's traceback ends in:", where.strip(), "->", what)


async def revoke_it() -> None:
    result = await slow_add.delay(1, 1, seconds=60)
    while await result.refresh() != "STARTED":  # noqa: ASYNC110  only to revoke it while it runs
        await asyncio.sleep(0.01)
    print("after revoke:", await result.revoke(terminate=True, wait=True, timeout=10))
    try:
        await result.get(timeout=10)
    except TaskRevoked:
        print("whoever waits gets TaskRevoked")


async def find_and_forget_it() -> None:
    job_id = (await add.delay(20, 22)).id
    result = add.AsyncResult(job_id)  # from the id alone, in any process
    print("before a look:", result.state)
    print("value:", await result.get(timeout=10), "| exists:", await result.exists())
    await result.forget()
    print("exists after forget:", await result.exists())
    try:
        await add.AsyncResult(job_id).get(timeout=10)
    except ResultNotFound:
        print("a new wait ends at once: ResultNotFound")


async def main() -> None:
    async with app, Worker(app):
        await look_and_wait()
        await wait_with_a_limit()
        await see_it_fail()
        await revoke_it()
        await find_and_forget_it()


asyncio.run(main())

# Output:
# ready at once: False
# ready later: True SUCCESS 8
# polled the property: 5
# not within 0.1 s; the job goes on
# a second wait: 2
# raised here: ZeroDivisionError('division by zero')
# FAILURE | failed: True | successful: False
# without raising: ZeroDivisionError('division by zero')
# the worker's traceback ends in: return x / y -> ZeroDivisionError: division by zero
# after revoke: REVOKED
# whoever waits gets TaskRevoked
# before a look: UNKNOWN
# value: 42 | exists: True
# exists after forget: False
# a new wait ends at once: ResultNotFound
