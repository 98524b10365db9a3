"""Which project directory a URL means."""

import pytest

from asyncq import embedded
from asyncq.errors import BrokerNotConfigured


@pytest.mark.parametrize("marker", ["pyproject.toml", ".git"])
def test_the_project_root_is_found_from_the_file_that_made_the_app(tmp_path, marker):
    (tmp_path / marker).touch()
    module = tmp_path / "src" / "shop" / "tasks.py"
    module.parent.mkdir(parents=True)
    module.touch()
    assert embedded.resolve("embedded://", project_file=str(module)) == tmp_path.resolve()


def test_without_a_project_the_root_is_the_directory_of_the_file(tmp_path):
    (tmp_path / "script.py").touch()
    assert embedded.resolve("embedded://", project_file=str(tmp_path / "script.py")) == tmp_path.resolve()


@pytest.mark.parametrize("project_file", [None, "<stdin>", "<ipython-input-1-abc>"])
def test_without_a_file_the_root_is_the_working_directory(tmp_path, monkeypatch, project_file):
    monkeypatch.chdir(tmp_path)
    assert embedded.resolve("embedded://", project_file=project_file) == tmp_path.resolve()


def test_a_worker_and_a_web_process_in_different_directories_share_one_server(script, project, tmp_path):
    (project / "app.py").touch()
    body = f"""
os.chdir({{directory!r}})
home = embedded.resolve("embedded://", project_file={str(project / "app.py")!r})
with embedded.acquire(home) as server:
    send_line(server.url)
    receive_line()
"""
    web, worker = script(body.format(directory="/")), script(body.format(directory=str(tmp_path)))
    assert web.receive_line() == worker.receive_line()


def test_a_url_names_the_directory(tmp_path):
    named = embedded.resolve(f"embedded://{tmp_path}/my%20shop", project_file=__file__)
    assert named == tmp_path.resolve() / "my shop"
    assert embedded.resolve(f"embedded://{tmp_path}/.asyncq", project_file=None) == tmp_path.resolve()


@pytest.mark.parametrize("url", ["embedded://relative/dir", "redis://localhost", "memory://"])
def test_other_urls_are_refused(url):
    with pytest.raises(BrokerNotConfigured, match="Not a URL of the embedded server"):
        embedded.resolve(url, project_file=None)
