"""SIGTERM and Ctrl-C count from the first line of the app's module on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

SLOW = """
import time
from pathlib import Path

from asyncq import AsyncQ

Path("importing").touch()
try:
    time.sleep(30)
except BaseException:  # also what a signal would raise
    time.sleep(30)
app = AsyncQ()
"""
COMMANDS = [
    ("worker", "slow"),
    ("worker", "slow", "-w", "2"),
    ("call", "slow", "add", "1", "2"),
    ("result", "get", "x", "--app", "slow"),
    ("revoke", "x", "--app", "slow"),
    ("dlq", "ls", "--app", "slow"),
    ("server", "run", "--app", "slow"),
]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_signal_during_the_import_ends_any_command_at_once_and_silently(project, stop, words):
    project.write("slow.py", SLOW)
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        (project.folder / "importing").unlink(missing_ok=True)
        process = project.start(*words)
        project.wait_for("importing")
        started = time.monotonic()
        ended = stop(process, number)
        assert (ended.out, ended.err) == ("", "")
        assert ended.code == (0 if words[0] == "worker" else code)
        assert time.monotonic() - started < 15, "it slept on"


BLOCKED = f"""
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
{SLOW}"""
"""Its main thread sleeps on at a signal, as when the signal comes just before `time.sleep` blocks."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_does_not_reach_the_main_thread_ends_the_command(project, stop, number):
    project.write("slow.py", BLOCKED)
    process = project.start("worker", "slow")
    project.wait_for("importing")
    started = time.monotonic()
    ended = stop(process, number)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert time.monotonic() - started < 15, "it slept on"


FORKS = """
import os, signal, time
from pathlib import Path

child = os.fork()
deadline = time.monotonic() + 30
while not child and time.monotonic() < deadline:
    time.sleep(0.01)
if not child:
    os._exit(1)
ended, status = 0, 0
while not ended:  # Python forgets a signal that comes while it sets a new process up
    os.kill(child, signal.SIGTERM)
    time.sleep(0.01)
    ended, status = os.waitpid(child, os.WNOHANG)
Path("code").write_text(str(os.waitstatus_to_exitcode(status)))
from asyncq import AsyncQ

app = AsyncQ()
"""


def test_a_signal_to_a_process_that_the_module_forked_does_not_end_the_command(project):
    project.write("forks.py", FORKS)
    ended = project.run("call", "forks", "add", "1", "2")
    assert "the app has no task 'add'" in ended.err
    assert (project.folder / "code").read_text() == str(-signal.SIGTERM)


def test_a_signal_that_was_ignored_before_the_start_stays_ignored(project):
    """As nohup and the background jobs of a script have it."""
    project.write("slow.py", SLOW.replace("sleep(30)", "sleep(1)"))
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'trap "" INT; exec "$0" -m asyncq call slow add 1 2', sys.executable],
        cwd=project.folder,
        env=project.environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    project.wait_for("importing")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "the app has no task 'add'" in err) == (2, True)


def test_a_child_for_last_attempts_that_is_stopped_during_the_import_exits_0(project):
    project.write("slow.py", SLOW)
    reader, pipe = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "asyncq.worker", "slow:app"],
        cwd=project.folder,
        env=project.environ,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=(pipe,),
    )
    os.close(pipe)
    setup = {"settings": {}, "logging": [20, "plain"], "path": ["", *sys.path], "argv": [""]}
    setup |= {"pipe": pipe, "parent": os.getpid()}
    child.stdin.write(json.dumps({**setup, "modules": [], "tasks": [], "target": "slow:app", "queues": []}))
    child.stdin.close()
    project.wait_for("importing")
    child.terminate()
    assert (child.wait(25), child.stderr.read()) == (0, "")
    child.stderr.close()
    os.close(reader)
