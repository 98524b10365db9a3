"""Blocking code in real processes: plain scripts, many threads, forks, and several processes at one job."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from asyncq import AsyncQ, ResultTimeout, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.program import Program


def test_a_script_without_a_loop_makes_calls_and_ends_by_itself(start: Callable[..., Program]) -> None:
    program = start(
        dedent("""
            from tasks import add
            result = add.delay_sync(4, 4)
            print(result.get_sync(timeout=30), result.state, result.ready_sync(), result.successful_sync())
            print(add.map_sync([(1, 2), (3, 4)]).get_sync(timeout=30))
            result.forget_sync()
            print(result.exists_sync())
        """)
    )

    assert program.end() == "8 SUCCESS True True\n[3, 7]\nFalse\n"


def test_a_with_block_in_a_script_may_be_entered_again(start: Callable[..., Program]) -> None:
    program = start(
        dedent("""
            from tasks import add, app
            for number in range(3):
                with app:
                    print(add.call_sync(number, number))
        """)
    )

    assert program.end() == "0\n2\n4\n"


def test_sixteen_threads_at_once_each_get_their_own_values(start: Callable[..., Program]) -> None:
    program = start(
        dedent("""
            import threading
            from concurrent.futures import ThreadPoolExecutor
            from tasks import add
            together = threading.Barrier(16)

            def calls(thread):
                together.wait()  # the first call of all of them opens the app
                return [add.call_sync(thread, 1000 * number) for number in range(25)]

            with ThreadPoolExecutor(16) as threads:
                answers = list(threads.map(calls, range(16)))
            print(answers == [[thread + 1000 * number for number in range(25)] for thread in range(16)])
        """)
    )

    assert program.end() == "True\n"


def test_the_parent_continues_after_a_forked_child_has_made_calls_and_exited(
    start: Callable[..., Program],
) -> None:
    program = start(
        dedent("""
            import os, sys, warnings
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, Python >= 3.12
            from tasks import add, slow_add
            print("parent", add.call_sync(1, 1), flush=True)
            before = slow_add.delay_sync(20, 22, seconds=0.5)
            child = os.fork()
            if child == 0:
                print("child", add.call_sync(2, 2), before.get_sync(timeout=30), flush=True)
                sys.exit(7)
            _, status = os.waitpid(child, 0)
            status = os.waitstatus_to_exitcode(status)
            print("parent", status, before.get_sync(timeout=30), add.call_sync(3, 3))
        """)
    )

    assert program.end() == "parent 2\nchild 4 42\nparent 7 42 6\n"


def test_the_parent_and_forked_children_make_calls_at_the_same_time(start: Callable[..., Program]) -> None:
    program = start(
        dedent("""
            import os, sys, warnings
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, Python >= 3.12
            from tasks import add
            add.call_sync(1, 1)

            def calls():
                return all(add.call_sync(number, number) == 2 * number for number in range(50))

            children = []
            for _ in range(3):
                child = os.fork()
                if child == 0:
                    sys.exit(0 if calls() else 1)
                children.append(child)
            print(calls(), [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
        """)
    )

    assert program.end() == "True [0, 0, 0]\n"


def test_several_processes_can_wait_for_one_job_by_its_id(start: Callable[..., Program]) -> None:
    launching = start("from tasks import slow_add; print(slow_add.delay_sync(40, 2, seconds=1).id)")
    job_id = launching.end().strip()

    waiting = [
        start(f"from tasks import app; print(app.AsyncResult({job_id!r}).get_sync(timeout=30))")
        for _ in range(3)
    ]

    assert [program.end() for program in waiting] == ["42\n"] * 3


@pytest.mark.anyio
async def test_a_job_can_be_queried_and_revoked_before_any_worker_has_run(
    make_app: Callable[..., AsyncQ],
) -> None:
    app = make_app()

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with app:
        result = await add.delay(1, 2)
        with pytest.raises(ResultTimeout):
            await result.get(timeout=0)
        assert (await result.ready(), await result.exists()) == (False, True)
        assert await result.refresh() is State.PENDING
        assert await result.revoke() is State.REVOKED
