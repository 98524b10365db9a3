"""The steps of tree.py in blocking code: every awaited method has a blocking variant with the suffix `_sync`.

Run it with `python examples/tree_sync.py`.
"""

import time

from tasks import add, app, divide, slow_add
from worker import background_worker

from asyncq import ResultNotFound, ResultTimeout, TaskRevoked


def look_and_wait() -> None:
    result = slow_add.delay_sync(4, 4, seconds=0.5)
    print("ready at once:", result.ready_sync())
    while not result.ready_sync():
        time.sleep(0.05)
    print("ready later:", result.ready_sync(), result.state, result.result)

    # The server pushes the outcome to this process, so a loop over the property ends, too, though it sends no
    # requests.
    result = slow_add.delay_sync(2, 3, seconds=0.1)
    while result.state != "SUCCESS":
        time.sleep(0.02)
    print("polled the property:", result.result)


def wait_with_a_limit() -> None:
    result = slow_add.delay_sync(1, 1, seconds=0.5)
    try:
        result.get_sync(timeout=0.1)
    except ResultTimeout:
        print("not within 0.1 s; the job goes on")
    print("a second wait:", result.get_sync(timeout=10))


def see_it_fail() -> None:
    result = divide.delay_sync(1, 0)
    try:
        result.get_sync(timeout=10)
    except ZeroDivisionError as error:
        print("raised here:", repr(error))
    print(result.state, "| failed:", result.failed_sync(), "| successful:", result.successful_sync())
    print("without raising:", repr(result.get_sync(propagate=False)))
    *_, where, what = (result.traceback or "").split("\n")[:-1]
    print("the worker's traceback ends in:", where.strip(), "->", what)


def revoke_it() -> None:
    result = slow_add.delay_sync(1, 1, seconds=60)
    while result.refresh_sync() != "STARTED":
        time.sleep(0.01)
    print("after revoke:", result.revoke_sync(terminate=True, wait=True, timeout=10))
    try:
        result.get_sync(timeout=10)
    except TaskRevoked:
        print("whoever waits gets TaskRevoked")


def find_and_forget_it() -> None:
    job_id = add.delay_sync(20, 22).id
    result = add.AsyncResult(job_id)  # from the id alone, in any process
    print("before a look:", result.state)
    print("value:", result.get_sync(timeout=10), "| exists:", result.exists_sync())
    result.forget_sync()
    print("exists after forget:", result.exists_sync())
    try:
        add.AsyncResult(job_id).get_sync(timeout=10)
    except ResultNotFound:
        print("a new wait ends at once: ResultNotFound")


if __name__ == "__main__":
    with app, background_worker():
        look_and_wait()
        wait_with_a_limit()
        see_it_fail()
        revoke_it()
        find_and_forget_it()

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
