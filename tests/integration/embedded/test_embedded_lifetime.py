"""Which process starts the embedded server, which one stops it, and that its data outlive both."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.waiting import until_sync

from asyncq import embedded
from asyncq.errors import BrokerNotConfigured, BrokerUnavailable

HOLD = """
with embedded.acquire(project) as server:
    send_line(embedded.status(project).pid, server.started_here)
    receive_line()
"""


def running(project):
    return embedded.status(project).running


def test_the_first_user_starts_the_server_the_second_attaches_and_the_last_one_stops_it(script, project):
    first = script(HOLD)
    pid, started = first.receive_line().split()
    assert started == "True"
    second = script(HOLD)
    assert second.receive_line() == f"{pid} False"

    first.send_line()
    first.end()
    assert running(project), "the second still uses it"

    second.send_line()
    second.end()
    assert not running(project)


def test_data_survive_the_stop_by_the_last_user(project, ask):
    with embedded.acquire(project) as server:
        ask(server, "SET basket apples")
    assert not running(project)
    with embedded.acquire(project) as server:
        assert ask(server, "GET basket") == "apples"


def test_handles_of_one_process_share_one_lock_and_are_counted(project):
    first, second = embedded.acquire(project), embedded.acquire(project)
    assert (first.started_here, second.started_here) == (True, False)
    first.release()
    first.release()
    assert running(project), "releasing twice must not count twice"
    second.release()
    assert not running(project)


def test_two_directories_have_two_servers(tmp_path, ask):
    with embedded.acquire(tmp_path / "a") as a, embedded.acquire(tmp_path / "b") as b:
        assert a.url != b.url
        ask(a, "SET name a")
        ask(b, "SET name b")
        assert ask(a, "GET name") == "a"


def test_two_paths_of_one_directory_have_one_server(project, tmp_path):
    (tmp_path / "alias").symlink_to(project)
    with embedded.acquire(project) as real, embedded.acquire(tmp_path / "alias") as alias:
        assert real.url == alias.url


def test_a_directory_with_spaces_and_quotes_works(tmp_path, ask):
    with embedded.acquire(tmp_path / "my \"shop\" 'é'") as server:
        assert ask(server, "PING") == "+PONG"


def test_threads_that_start_at_once_start_one_server(project):
    barrier = threading.Barrier(8)

    def start():
        barrier.wait()
        return embedded.acquire(project)

    with ThreadPoolExecutor(8) as pool:
        servers = [future.result() for future in [pool.submit(start) for _ in range(8)]]
    assert sum(server.started_here for server in servers) == 1
    for server in servers:
        server.release()
    assert not running(project)


@pytest.mark.trial
def test_thirty_processes_that_start_at_once_start_one_server(script, project, ask):
    crowd = """
gate, open_gate = os.pipe()
children = []
for _ in range(30):
    child = os.fork()
    if child == 0:
        os.close(open_gate)
        os.read(gate, 1)                       # ends for all at once, when the last writer closes
        server = embedded.acquire(project)
        command(server, f"SADD pids {embedded.status(project).pid}")
        command(server, "INCR count")
        if server.started_here: command(server, "INCR starts")
        while int(command(server, "GET count")) % 30: time.sleep(0.02)   # nobody leaves before all are in
        sys.exit(0)                            # leaves by atexit
    children.append(child)
os.close(open_gate)
statuses = [os.waitpid(child, 0)[1] for child in children]
send_line(sum(statuses), embedded.status(project).running)
"""
    for round_ in (1, 2):
        assert script(crowd).end() == ["0", "False"], (
            "all ended normally, and the last user stopped the server"
        )
        with embedded.acquire(project) as server:
            assert ask(server, "GET count") == str(30 * round_), "no increment was lost"
            assert ask(server, "GET starts") == str(round_)
            assert ask(server, "SCARD pids") == f":{round_}"


def test_a_killed_server_is_started_again_with_its_data(project, ask):
    with embedded.acquire(project) as server:
        ask(server, "SET basket apples")
        ask(server, "WAITAOF 1 0 5000")  # answers once the append-only file is on disk
        os.kill(embedded.status(project).pid, signal.SIGKILL)
        until_sync(lambda: not running(project), "the killed server is gone")
        assert server.socket.exists(), "a stale socket remains"
        with embedded.acquire(project) as again:
            assert again.started_here
            assert again.url == server.url, "the address stays the same"
            assert ask(again, "GET basket") == "apples"


def test_a_killed_launcher_leaves_the_server_to_the_others(script, project):
    launcher = script(HOLD)
    launcher.receive_line()
    other = script(HOLD)
    other.receive_line()
    launcher.kill(signal.SIGKILL)
    assert running(project)
    other.send_line()
    other.end()
    assert not running(project), "the lock of a killed process must not count"


def test_a_process_ended_by_sigterm_leaves_a_server_that_can_be_seen_and_stopped(script, project):
    lonely = script(HOLD)
    lonely.receive_line()
    lonely.kill(signal.SIGTERM)
    left = embedded.status(project)
    assert (left.running, left.in_use) == (True, False)
    assert embedded.stop(project)
    assert not running(project)


def test_a_server_without_users_is_stopped_when_the_next_last_user_leaves(script, project):
    lonely = script(HOLD)
    lonely.receive_line()
    lonely.kill()
    with embedded.acquire(project) as server:
        assert not server.started_here
    assert not running(project)


def test_a_process_releases_its_server_at_exit(script, project):
    assert script("send_line(embedded.acquire(project).started_here)").end() == ["True"]
    assert not running(project)


def test_a_forked_child_keeps_the_server_after_its_parent_releases_it(script, project):
    family = script("""
server = embedded.acquire(project)
child = os.fork()
if child == 0:
    receive_line()
    send_line(command(server, "PING"))
    server.release()
    send_line(embedded.status(project).running)
    os._exit(0)
server.release()
send_line("parent", embedded.status(project).running)
os.waitpid(child, 0)
""")
    assert family.receive_line() == "parent True"
    family.send_line()
    assert family.end() == ["+PONG", "False"]


def test_a_forked_child_that_exits_does_not_stop_its_parents_server(script, project):
    family = script("""
server = embedded.acquire(project)
if os.fork() == 0:
    server.release()
    sys.exit(0)
os.wait()
send_line(command(server, "PING"))
""")
    assert family.end() == ["+PONG"]
    assert not running(project)


def test_a_forked_child_has_its_own_lock(script):
    family = script("""
import fcntl
server = embedded.acquire(project)
held = embedded.server_handle.HeldServers.held[project]
if os.fork() == 0:
    fcntl.flock(held.users, fcntl.LOCK_UN)     # would unlock the parent too, were the descriptor still shared
    os._exit(0)
os.wait()
send_line(embedded.status(project).in_use)
""")
    assert family.end() == ["True"]


def test_a_process_that_inherited_the_lock_file_descriptor_counts_as_a_user(project):
    # This happens after a fork in C, and for an instant before a forked child has reopened the lock.
    server = embedded.acquire(project)
    users = embedded.server_handle.HeldServers.held[project].users
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(users,))
    server.release()
    assert running(project)
    child.communicate(b"\n")
    assert embedded.stop(project)


def test_processes_with_different_environments_share_one_server(script, project):
    # cron and containers have no XDG_RUNTIME_DIR, so the second process searches another directory first.
    first = script(HOLD)
    pid = first.receive_line().split()[0]
    cron = script(HOLD, XDG_RUNTIME_DIR=None)
    assert cron.receive_line() == f"{pid} False"
    first.send_line()
    first.end()
    assert running(project)
    cron.send_line()
    cron.end()
    assert not running(project)


def test_different_environments_that_start_at_once_start_one_server(script, project):
    both = [
        script("receive_line()" + HOLD, XDG_RUNTIME_DIR=value)
        for value in (os.environ["XDG_RUNTIME_DIR"], None)
    ]
    for each in both:
        each.send_line()
    answers = [each.receive_line().split() for each in both]
    assert len({pid for pid, _ in answers}) == 1
    assert sorted(started for _, started in answers) == ["False", "True"]
    for each in both:
        each.send_line()
        each.end()
    assert not running(project)
    name = embedded.directories.own_directories(project).runtime.name
    shutil.rmtree(f"/tmp/asyncq-{os.geteuid()}/{name}", ignore_errors=True)


def test_no_second_server_starts_on_the_data_of_an_unreachable_one(script, project, runtime, impatient):
    # As in another container that mounts the same project: the data are locked, and the socket does not
    # exist.
    owner = script(HOLD)
    owner.receive_line()
    shutil.move(runtime / "asyncq", runtime / "hidden")
    with pytest.raises(BrokerNotConfigured, match="in use by a server that cannot be reached") as caught:
        embedded.acquire(project)
    assert "ASYNCQ_URL" in str(caught.value)
    assert embedded.stop(project), "it can still be ended, by its pid"


def test_a_server_whose_socket_was_deleted_can_be_stopped(script, project, runtime):
    owner = script(HOLD)
    pid = int(owner.receive_line().split()[0])
    shutil.rmtree(runtime / "asyncq")  # as a logout does
    assert embedded.stop(project)
    assert not embedded.operations.command_line(pid)


def test_a_server_that_hangs_is_reported_and_not_replaced(project, impatient):
    with embedded.acquire(project):
        pid = embedded.status(project).pid
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(BrokerUnavailable, match="does not answer"):
                embedded.acquire(project)
        finally:
            os.kill(pid, signal.SIGCONT)
        with embedded.acquire(project) as again:
            assert not again.started_here


def test_stop_does_not_stop_a_server_in_use_unless_forced(script, project):
    user = script(HOLD)
    user.receive_line()
    assert not embedded.stop(project)
    assert running(project)
    assert embedded.stop(project, force=True)
    assert not running(project)


def test_a_forced_stop_ends_a_server_that_hangs(project, impatient):
    with embedded.acquire(project):
        os.kill(embedded.status(project).pid, signal.SIGSTOP)
        assert embedded.stop(project, force=True)
        assert not running(project)


def test_stop_reports_that_no_server_was_running(project):
    assert not embedded.stop(project)
    assert not list(project.iterdir()), "a status check leaves no files"


def test_status_describes_the_server(project, ask):
    assert not running(project)
    assert embedded.status(project).version is None
    with embedded.acquire(project) as server:
        ask(server, "MSET a 1 b 2")
        found = embedded.status(project)
        assert (found.running, found.in_use, found.keys) == (True, True, 2)
        assert found.socket == server.socket
        assert found.directory == server.directory == project
        assert found.version == server.version
        assert found.memory > 100_000
        assert found.aof_size > 0
        os.kill(found.pid, 0)
    after = embedded.status(project)
    assert (after.running, after.pid, after.in_use, after.version) == (False, None, False, server.version)
    assert after.aof_size > 0


def test_data_files_are_private_and_ignored_by_git(project):
    with embedded.acquire(project) as server:
        data = project / ".asyncq"
        assert data.stat().st_mode & 0o777 == 0o700
        assert server.socket.parent.stat().st_mode & 0o777 == 0o700
        assert (data / ".gitignore").read_text() == "*\n"


FOREGROUND = """
embedded.run_foreground(project, ready=lambda server: send_line(embedded.status(project).pid, server.url))
send_line("ended")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_foreground_keeps_the_server_running_until_a_signal(script, project, number):
    foreground = script(FOREGROUND)
    foreground.receive_line()
    with embedded.acquire(project) as guest:
        assert not guest.started_here
    assert running(project), "foreground still uses the server after the last guest has left"
    foreground.process.send_signal(number)
    assert foreground.end() == ["ended"]
    assert not running(project)


def test_foreground_restarts_a_killed_server(script, project):
    foreground = script(FOREGROUND)
    pid, url = foreground.receive_line().split()
    os.kill(int(pid), signal.SIGKILL)
    again, same_url = foreground.receive_line().split()
    assert again != pid
    assert same_url == url
    foreground.process.send_signal(signal.SIGTERM)
    foreground.end()
