"""Which runtime directory the embedded server uses."""

import os
from pathlib import Path

import pytest

from asyncq import embedded
from asyncq.errors import BrokerNotConfigured


def test_the_socket_path_stays_within_the_limit_of_the_system(tmp_path, monkeypatch):
    deep = tmp_path / ("x" * 200)
    deep.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    directories = embedded.directories.own_directories(deep / "shop")
    assert len(os.fsencode(directories.socket)) <= 103
    assert directories.runtime.parent == Path(f"/tmp/asyncq-{os.geteuid()}")


def test_a_project_with_a_very_long_path_works(tmp_path, ask):
    with embedded.acquire(tmp_path.joinpath(*["d" * 60] * 4)) as server:
        assert ask(server, "PING") == "+PONG"


def test_a_runtime_directory_that_other_users_may_enter_is_not_used(runtime):
    runtime.chmod(0o755)
    assert not embedded.directories.own_directories(Path("/srv/shop")).runtime.is_relative_to(runtime)


def test_a_runtime_directory_of_another_user_is_not_used(runtime):
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(runtime, 65534, 65534)
    assert not embedded.directories.own_directories(Path("/srv/shop")).runtime.is_relative_to(runtime)


@pytest.mark.parametrize("trap", ["open to others", "a link"])
def test_a_directory_that_another_user_prepared_is_refused(runtime, tmp_path, project, trap):
    if trap == "a link":
        (runtime / "asyncq").symlink_to(tmp_path)
    else:
        (runtime / "asyncq").mkdir()
        (runtime / "asyncq").chmod(0o777)
    with pytest.raises(BrokerNotConfigured, match="must belong to you with mode 0700"):
        embedded.acquire(project)
