"""A program that the tests fork has the same environment as one that a user starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from helpers.forked import Forked

PROGRAM = """
import json, os, signal, sys, threading, warnings
main = sys.modules["__main__"]
spec = main.__spec__ and main.__spec__.name
path = getattr(main, "__file__", None)
print(json.dumps([sys.argv, sys.path, __name__, __package__, spec, path]))
print(os.getcwd(), sorted(os.environ.items()))
print([[stream.fileno(), stream.encoding, stream.errors, stream.line_buffering, stream.isatty()]
       for stream in (sys.stdin, sys.stdout, sys.stderr)])
print([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)])
print(sorted(os.listdir("/proc/self/fd")), threading.enumerate() == [threading.main_thread()])
print(warnings.filters[:1] if sys.argv[1:] == ["warned"] else "")
print("to stderr", file=sys.stderr)
sys.exit(3)
"""


@pytest.fixture
def folder(tmp_path):
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(PROGRAM)
    (tmp_path / "script.py").write_text(PROGRAM)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text("import os; os.environ['CUSTOMIZED'] = '1'")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "shop", "a", "-b"],
        ["-m", "shop.__main__"],
        ["-c", PROGRAM, "a", "-b"],
        ["script.py", "a"],
        ["-W", "always::ResourceWarning", "script.py", "warned"],
    ],
    ids=["package", "module", "code", "file", "warnings"],
)
def test_a_forked_program_has_the_same_environment_as_a_started_one(folder, arguments):
    environ = {**os.environ, "PYTHONPATH": str(folder / "path")}
    started = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    forked = Forked(arguments, folder, environ)
    output, errors = forked.communicate(30)
    assert (output, errors, forked.returncode) == (started.stdout, started.stderr, 3)
    assert started.returncode == 3


def test_a_forked_program_can_be_ended_by_a_signal_and_waited_for(folder):
    forked = Forked(["-c", "import time; print('ready', flush=True); time.sleep(60)"], folder, os.environ)
    assert forked.stdout.readline() == "ready\n"
    assert forked.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        forked.wait(0)
    forked.send_signal(signal.SIGKILL)
    assert forked.wait(30) == -signal.SIGKILL
    assert forked.communicate() == ("", "")
