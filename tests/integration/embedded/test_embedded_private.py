"""The throw-away server of `memory://`: one for each process, and it ends with the process."""

import os
import signal
import tempfile
from pathlib import Path

import pytest
from helpers.waiting import until_sync

from asyncq import embedded
from asyncq.errors import BrokerNotConfigured

HOLD = """
server = embedded.private()
send_line(server.directory, embedded.resp.probe(server.socket).info["process_id"])
"""


def server_is_gone(directory, pid):
    return not Path(directory).exists() and not embedded.operations.command_line(int(pid))


def test_a_private_server_serves_and_leaves_nothing_behind(ask):
    server = embedded.private()
    assert ask(server, "SET a 1") == "+OK"
    assert ask(server, "CONFIG GET appendonly") == "*2"
    assert not (server.directory / "appendonlydir").exists(), "nothing is written"
    server.release()
    server.release()
    assert not server.directory.exists()


def test_a_process_has_one_private_server_and_counts_its_handles(ask):
    first, second = embedded.private(), embedded.private()
    assert first.url == second.url
    assert (first.started_here, second.started_here) == (True, False)
    first.release()
    assert ask(second, "PING") == "+PONG"
    second.release()
    assert not second.directory.exists()


def test_the_next_private_server_starts_empty(ask):
    with embedded.private() as server:
        ask(server, "SET a 1")
    with embedded.private() as server:
        assert ask(server, "EXISTS a") == ":0"


def test_two_processes_have_two_private_servers(script):
    first, second = script(HOLD + "receive_line()"), script(HOLD + "receive_line()")
    assert first.receive_line() != second.receive_line()


def test_a_private_server_ends_when_its_process_exits(script):
    ending = script(HOLD)
    directory, pid = ending.end()
    assert server_is_gone(directory, pid), "it ends with the process, and not later"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_private_server_ends_when_its_process_is_killed(script, number):
    killed = script(HOLD + "receive_line()")
    directory, pid = killed.receive_line().split()
    killed.kill(number)
    until_sync(lambda: server_is_gone(directory, pid), "server and directory are gone")


def test_a_private_server_ends_with_its_killed_process_though_a_forked_child_lives_on(script):
    parent = script(
        HOLD + "child = os.fork()\nif child == 0: time.sleep(60)\nsend_line(child)\nreceive_line()"
    )
    directory, pid = parent.receive_line().split()
    child = int(parent.receive_line())
    try:
        parent.kill()
        until_sync(lambda: server_is_gone(directory, pid), "server and directory are gone")
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_neither_ends_nor_shares_its_parents_server(script):
    family = script("""
server = embedded.private()
if os.fork() == 0:
    server.release()
    own = embedded.private()
    send_line(own.started_here, own.url != server.url)
    sys.exit(0)
os.wait()
send_line(command(server, "PING"))
""")
    assert family.end() == ["True", "True", "+PONG"]


def test_a_process_can_release_a_private_server_that_has_crashed(ask):
    server = embedded.private()
    os.kill(int(embedded.resp.probe(server.socket).info["process_id"]), signal.SIGKILL)
    server.release()
    assert not server.directory.exists()


def test_a_server_that_cannot_start_is_reported_with_its_log(tmp_path, monkeypatch):
    broken = tmp_path / "server"
    broken.write_text("#!/bin/sh\necho out of order\nexit 3\n")
    broken.chmod(0o700)
    monkeypatch.setattr(embedded.launch, "find", lambda: broken)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(BrokerNotConfigured, match="out of order"):
        embedded.private()
    assert [path.name for path in tmp_path.iterdir()] == ["server"], "the temporary directory is removed"


def test_a_temporary_directory_with_a_long_path_is_avoided(tmp_path, monkeypatch, ask):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with embedded.private() as server:
        assert ask(server, "PING") == "+PONG"
    assert not list(deep.iterdir())
