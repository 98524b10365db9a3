"""If the embedded server cannot start, the error says why and what helps. The start never hangs."""

import os
import shutil
import subprocess
import sys

import pytest
from helpers.stopwatch import Stopwatch

from asyncq import embedded
from asyncq.errors import BrokerNotConfigured


def failure(project):
    with pytest.raises(BrokerNotConfigured) as caught:
        embedded.acquire(project)
    assert not embedded.status(project).running
    return str(caught.value)


@pytest.fixture
def files(project, ask):
    """Returns the project's append-only files, after a server has written data and ended."""
    with embedded.acquire(project) as server:
        ask(server, "SET basket apples")
    return project / ".asyncq" / "appendonlydir"


def test_a_broken_append_only_file_is_reported_with_the_log_and_a_repair(project, files):
    next(files.glob("*.incr.aof")).write_bytes(b"*2\r\n$6\r\nSELECT\r\ngarbage that goes on and on\r\n" * 3)
    message = failure(project)
    assert "append only file" in message
    assert "valkey-check-aof --fix" in message


def test_the_server_starts_after_a_crash_in_the_middle_of_a_write(project, files, ask):
    with next(files.glob("*.incr.aof")).open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$6\r\nbas")
    with embedded.acquire(project) as server:
        assert ask(server, "GET basket") == "apples"


@pytest.mark.bundled
def test_data_of_a_newer_server_are_reported_with_its_version(project, files):
    base = next(files.glob("*.base.rdb"))
    base.write_bytes(b"VALKEY999" + base.read_bytes()[9:])
    message = failure(project)
    assert "written by a newer server (Valkey 9." in message


def test_a_repaired_failure_is_not_reported_again(project, files):
    base = next(files.glob("*.base.rdb"))
    sound = base.read_bytes()
    base.write_bytes(b"VALKEY999" + sound[9:])
    failure(project)
    base.write_bytes(sound)
    with embedded.acquire(project) as server:
        assert server.started_here


def test_a_file_at_the_path_of_the_data_directory_is_reported(project):
    (project / ".asyncq").write_text("")
    message = failure(project)
    assert "File exists" in message
    assert "ASYNCQ_URL" in message


@pytest.mark.parametrize("closed", ["the project", "the data"])
def test_a_directory_that_cannot_be_written_is_reported(script, project, tmp_path, closed):
    directory = project if closed == "the project" else project / ".asyncq"
    directory.mkdir(exist_ok=True)
    for each in [*tmp_path.parents, tmp_path][-3:]:
        each.chmod(0o755)
    directory.chmod(0o555)
    attempt = script(
        """
if os.geteuid() == 0:
    os.setuid(65534)                  # root may write anywhere
os.environ["XDG_RUNTIME_DIR"] = ""
try: embedded.acquire(project)
except BrokerNotConfigured as error: send_line(error)
"""
    )
    words = " ".join(attempt.end())
    assert "Permission denied" in words
    assert "ASYNCQ_URL" in words
    shutil.rmtree("/tmp/asyncq-65534", ignore_errors=True)


@pytest.mark.parametrize("room", [0, 4, 8])
def test_a_full_disk_is_reported(project, room):
    attempt = f"""
mount -t tmpfs -o size=32k tmpfs {project} || exit 77
dd if=/dev/zero of={project}/ballast bs=1k count={32 - room} 2>/dev/null
exec {sys.executable} -c '
import sys; from pathlib import Path
from asyncq import embedded; from asyncq.errors import BrokerNotConfigured
try: embedded.acquire(Path(sys.argv[1]))
except BrokerNotConfigured as error: print(error)
' {project}
"""
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", attempt], capture_output=True, text=True, check=False
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this system lets nobody mount a small disk")
    assert "The disk is full" in done.stdout, done.stderr


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Installs a shell script instead of the server."""

    def install(body):
        path = tmp_path / "server"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        monkeypatch.setattr(embedded.launch, "find", lambda: path)

    return install


def test_a_server_that_never_answers_is_stopped_at_the_deadline(project, program, impatient):
    program(f'echo $$ > "{project}/pid"; echo still thinking; exec sleep 60')
    stopwatch = Stopwatch()
    message = failure(project)
    assert "did not answer" in message
    assert "still thinking" in message
    assert stopwatch.took < 3
    assert "sleep" not in embedded.operations.command_line(int((project / "pid").read_text()))


def test_a_server_that_ends_at_once_is_reported_at_once(project, program):
    program("echo out of order; exit 3")
    stopwatch = Stopwatch()
    message = failure(project)
    assert "status 3" in message
    assert "out of order" in message
    assert stopwatch.took < 5, "well before the deadline"


def test_only_the_log_of_this_start_is_shown(project, program):
    program("echo first; exit 1")
    failure(project)
    program("echo second; exit 1")
    message = failure(project)
    assert "second" in message
    assert "first" not in message


def test_a_failure_leaves_no_lock_behind(project, program, monkeypatch):
    program("exit 1")
    failure(project)
    directories = embedded.directories.own_directories(project)
    for lock in (directories.start_lock, directories.users_lock, directories.data / "server.lock"):
        descriptor = embedded.locks.try_exclusive(lock)
        assert descriptor is not None, lock
        os.close(descriptor)
