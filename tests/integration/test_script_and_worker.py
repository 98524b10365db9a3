"""A file that the caller runs as a script and the worker imports, or the other way round."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from helpers.forked import TESTS
from test_processes_of_scripts import environment

SCRIPT = """
import asyncio, json, sys
import asyncq
from asyncq import AsyncQ, Retry, Worker

app = AsyncQ()

class OutOfStock(Exception):
    pass

class Several(ExceptionGroup):
    pass

@app.task
async def buy(n: int) -> int:
    raise OutOfStock(n)

@app.task
async def buys() -> int:
    raise Several("all", [OutOfStock(1), ValueError(2)])

@app.task(executor="process")
def buy_in_process() -> int:
    raise OutOfStock(2)

async def second_time() -> int:
    if asyncq.current().attempt < 2:
        raise OutOfStock("again")
    return 5

on_loop = app.task(name="on_loop")(second_time)

@app.task(name="in_process", executor="process")
def in_process() -> int:
    if asyncq.current().attempt < 2:
        raise OutOfStock("again")
    return 6

async def caught(task, *args):
    try:
        return await task.options(wait=30).call(*args)
    except OutOfStock as error:
        return ["OutOfStock", list(error.args)]
    except Several as error:
        return [type(member).__name__ for member in error.exceptions]

async def call():
    policy = Retry(on=(OutOfStock,), backoff=0.01)
    async with app:
        answers = [
            await caught(buy, 3),
            await caught(buys),
            await caught(buy_in_process),
            await caught(on_loop.options(retry=policy)),
            await caught(in_process.options(retry=policy)),
        ]
    print(json.dumps(answers))

async def serve():
    async with app, Worker(app):
        print("ready", flush=True)
        await asyncio.Event().wait()

if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1:] == ["serve"] else call())
"""

PYTHON = [sys.executable]
SCRIPT_RUN = ["shop_script.py"]
TRIAL = pytest.mark.trial
IMPORTED = "import asyncio, shop_script; asyncio.run(shop_script.{}())"


@pytest.mark.parametrize(
    ("caller", "worker"),
    [
        pytest.param(SCRIPT_RUN, ["-c", IMPORTED.format("serve")], id="worker imports", marks=TRIAL),
        pytest.param(SCRIPT_RUN, ["-m", "asyncq", "worker", "shop_script:app"], id="command imports"),
        pytest.param(
            ["-c", IMPORTED.format("call")], [*SCRIPT_RUN, "serve"], id="caller imports", marks=TRIAL
        ),
        pytest.param(SCRIPT_RUN, [*SCRIPT_RUN, "serve"], id="both run it", marks=TRIAL),
        pytest.param(["-m", "shop_script"], [*SCRIPT_RUN, "serve"], id="caller runs a module", marks=TRIAL),
    ],
)
def test_a_script_and_its_worker_match_exceptions_and_retry_policies(
    server_url, namespace, tmp_path, caller, worker
):
    (tmp_path / "shop_script.py").write_text(SCRIPT)
    environ = {**environment(server_url, namespace), "PYTHONPATH": f"{tmp_path}:{TESTS}"}
    serving = subprocess.Popen([*PYTHON, *worker], cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL)
    try:
        ran = subprocess.run(
            [*PYTHON, *caller], cwd=tmp_path, env=environ, capture_output=True, timeout=100, check=False
        )
    finally:
        serving.terminate()
        serving.wait(30)
    assert ran.returncode == 0, ran.stderr.decode()
    assert json.loads(ran.stdout) == [
        ["OutOfStock", [3]],
        ["OutOfStock", "ValueError"],
        ["OutOfStock", [2]],
        5,
        6,
    ]
