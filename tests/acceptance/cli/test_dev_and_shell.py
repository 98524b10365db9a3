"""`asyncq dev`, `asyncq shell` and `asyncq completion`, as real processes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys

import pytest
from helpers.error_output import until_line
from helpers.waiting import until_sync

JOBS = """
from asyncq import AsyncQ

app = AsyncQ(lease=2)

@app.task
async def version() -> int:
    return 1
"""


def test_dev_runs_a_worker_and_the_embedded_server_takes_new_code_and_ends_with_one_ctrl_c(project, stop):
    project.write("jobs.py", JOBS)
    dev = project.start("dev", "jobs:app")
    assert "embedded Valkey" in until_line(dev, "ready in")
    assert project.run("call", "jobs", "version", "-q").out == "1\n"
    # Of another length: `call` has imported the module, too, and Python may take what it cached.
    project.write("jobs.py", JOBS.replace("return 1", "return 1 + 1"))
    until_line(dev, "rolled over")
    assert project.run("call", "jobs", "version", "-q").out == "2\n"
    assert stop(dev, signal.SIGINT).code == 0
    status = project.run("server", "status", "--app", "jobs")
    assert (status.code, status.out.splitlines()[0]) == (3, "not running"), status


def test_dev_hands_back_a_job_that_runs_longer_than_its_grace_and_exits_0(project, stop):
    dev = project.start("dev", "shop", "--grace", "0s")
    until_line(dev, "ready in")
    project.run("call", "shop", "slow", "60", "mark", "--no-wait", "-q")
    project.wait_for("mark")
    ended = stop(dev, signal.SIGINT)
    assert (ended.code, "1 handed back" in ended.err) == (0, True), ended


def test_a_shell_awaits_calls_of_tasks_by_their_names_line_by_line(project, tmp_path):
    lines = tmp_path / "lines"
    lines.write_text(
        "from asyncq import Worker\n"
        "async def main():\n"
        "    async with Worker(app):\n"
        "        return await add.call(1, 2)\n"
        "\n"
        "print('sum', await main())\n"
        "result = await echo.delay('a')\n"
        "result.id == (await app.control.jobs()).items[0].id\n"
        "1 / 0\n"
        "await result.revoke()\n"
        "exit()\n"
        "print('never')\n"
    )
    with lines.open() as stdin:
        shell = project.start("shell", "shop", stdin=stdin.fileno())
        out, err = shell.communicate(timeout=60)
    assert shell.returncode == 0, (out, err)
    assert out.splitlines()[:2] == ["sum 3", "True"]
    assert "never" not in out
    assert "ZeroDivisionError" in err


def test_a_shell_without_an_app_says_which(project):
    ended = project.run("shell")
    assert (ended.code, "which app?" in ended.err) == (78, True), ended


@pytest.mark.skipif(importlib.util.find_spec("IPython") is None, reason="needs IPython")
def test_a_shell_in_a_terminal_is_ipython_and_awaits(project):
    shown = ""
    environ = {"TERM": "dumb", "IPYTHONDIR": str(project.folder / "ipython")}
    with project.in_terminal("shell", "shop", **environ) as (process, terminal):
        while "In [1]:" not in shown:
            shown += os.read(terminal, 4096).decode()
        os.write(terminal, b"(await echo.delay(5)).name, 6 * 7\r")
        while "42)" not in shown:
            shown += os.read(terminal, 4096).decode()
        os.write(terminal, b"exit()\r")
        until_sync(lambda: process.poll() is not None, f"IPython to end: {shown}")
    assert "('shop.echo', 42)" in shown, shown
    assert process.returncode == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_prints_a_script_that_the_shell_can_read(project, shell, tmp_path):
    ended = project.run("completion", shell)
    assert (ended.code, "_ASYNCQ_COMPLETE" in ended.out) == (0, True)
    if shell != "powershell" and (program := shutil.which(shell)) is not None:
        script = tmp_path / "script"
        script.write_text(ended.out)
        read = subprocess.run([program, "-n", str(script)], capture_output=True, text=True, check=False)
        assert (read.returncode, read.stderr) == (0, "")


def test_bash_completes_commands_with_the_script(project, tmp_path):
    script = tmp_path / "script"
    script.write_text(project.run("completion", "bash").out)
    program = tmp_path / "asyncq"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom asyncq.cli.main import run\nsys.exit(run())\n")
    program.chmod(0o755)
    asked = (
        f"source {script}; COMP_WORDS=(asyncq queues p); COMP_CWORD=2; _asyncq_completion {program}; "
        "echo ${COMPREPLY[@]}"
    )
    answer = subprocess.run(
        ["bash", "-c", asked],
        env={**project.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=project.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout.split() == ["pause", "purge"], answer


def test_powershell_gets_the_commands_that_fit_with_their_help(project):
    asked = {
        "_ASYNCQ_COMPLETE": "complete_powershell",
        "_TYPER_COMPLETE_ARGS": "asyncq queues p",
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": "p",
    }
    script = project.run("completion", "powershell").out
    assert all(name in script for name in asked), "the script sets these"
    answer = project.run(**asked)
    names = [line.partition(":::")[0] for line in answer.out.splitlines()]
    assert names == ["pause", "purge"], answer
    assert "Ends the jobs that wait in a queue" in answer.out


def test_completion_of_an_unknown_shell_is_a_usage_error(project):
    ended = project.run("completion", "tcsh")
    assert (ended.code, "write one of bash, zsh, fish, powershell" in ended.err) == (2, True), ended
