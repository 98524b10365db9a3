"""Runs the documentation: every Python block of every page, and compares with the text block that follows it.

A page is a project: each Python block begins with a comment that names its file. What a reader would start is
started: a block that shows its output, and pytest for the `test_` files, one for all of them except for those
with fixtures that last for the session. Other blocks are imported. A TOML block that begins with the name
`pyproject.toml` is written. A line `asyncq worker ...` starts that worker. Other `asyncq` lines are run if
their output is shown. So is a line that ends with `|| echo "exit code $?"`, which shows how a command fails;
a Python block above it is only written.

A page with a `manage.py` is a site of Django: its files need each other, so all are written first, and those
that show no output are imported by the others. A line `python manage.py asyncq_worker` starts that worker.
Other lines of `manage.py` are run.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import django
import pytest
from helpers.forked import Forked
from helpers.own_server import free_port
from helpers.quiet import without_job_log, without_late_worker

from asyncq import config, embedded

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FAILS = ' || echo "exit code $?"'
FOLDER = "/srv/shop"
"""Where the pages have the folder of the project."""
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    output: str | None
    """The text block that follows, if one does."""

    @property
    def fails(self) -> bool:
        """Whether it is a command that shows how it fails."""
        return self.text.rstrip().endswith(FAILS)

    @property
    def file(self) -> str:
        first = self.text.partition("\n")[0]
        named = re.fullmatch(r"# ([\w/]+\.(?:py|toml))", first)
        assert named, f"the block does not begin with the name of its file, but with {first!r}"
        return named[1]


def _blocks(page: Path) -> list[Block]:
    found = FENCE.findall(page.read_text())
    following = [*found, ("", "")][1:]
    return [
        Block(language, text, next_text if next_language == "text" else None)
        for (language, text), (next_language, next_text) in zip(found, following, strict=True)
    ]


def _has_python(page: Path) -> bool:
    return any(block.language == "python" for block in _blocks(page))


def _is_site_of_django(blocks: list[Block]) -> bool:
    return any(block.text.startswith("# manage.py\n") for block in blocks)


def _skip_without_django_tasks(page: Path) -> None:
    if page.name == "django-tasks.md" and django.VERSION < (6,):
        pytest.skip("django.tasks came with Django 6, which needs Python 3.12")


class Project:
    """The files of a page, the environment that its reader has, and what was started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[Forked] = []
        self._tests: list[str] = []
        binaries = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environ = {
            **os.environ,
            "ASYNCQ_EMBEDDED": "always",
            "PATH": binaries,
            "PYTHONPATH": without_job_log(folder / "quiet", folder),
        }
        # The plugin warns where this is not set. A page that is about the plugin has its own file.
        (folder / "pyproject.toml").write_text(
            '[tool.pytest.ini_options]\nasyncio_default_fixture_loop_scope = "function"\n'
        )

    def write(self, block: Block) -> None:
        file = self.folder / block.file
        file.parent.mkdir(exist_ok=True)
        file.write_text(block.text)

    def write_site_of_django(self, blocks: list[Block]) -> None:
        self.environ["DJANGO_SETTINGS_MODULE"] = "settings"
        for block in blocks:
            if block.language == "python":
                self.write(block)

    def run(self, block: Block) -> None:
        self.write(block)
        if block.file.startswith("test_"):
            if 'scope="session"' in block.text:
                self._run_tests([block.file])
            else:
                self._tests.append(block.file)
        elif block.output is not None:
            self._compare(block.output, "-W", "error", block.file)
        else:
            self._compare(None, "-W", "error", "-c", f"import {block.file.removesuffix('.py')}")

    def run_other_tests(self) -> None:
        """Runs the files of tests that can share a process."""
        if self._tests:
            self._run_tests(self._tests)

    def _run_tests(self, files: list[str]) -> None:
        # Plugins that no page is about, and that take a while to import.
        others = [f"-pno:{plugin}" for plugin in ("hypothesispytest", "xdist", "timeout", "valkey")]
        self._compare(None, "-m", "pytest", "-q", *others, *files)

    def _compare(self, expected: str | None, *arguments: str) -> None:
        process = Forked(list(arguments), self.folder, self.environ)
        self.running.append(process)
        output, errors = process.communicate(timeout=100)
        assert (process.returncode, without_late_worker(errors)) == (0, []), output
        if expected is not None:
            assert output == expected

    def _compare_failure(self, expected: str | None, *arguments: str) -> None:
        process = Forked(list(arguments), self.folder, self.environ)
        self.running.append(process)
        output, errors = process.communicate(timeout=100)
        shown = f"{output}{errors}exit code {process.returncode}\n"
        assert shown.replace(str(self.folder), FOLDER) == expected

    def start(self, *arguments: str) -> None:
        program = arguments if arguments[0].endswith(".py") else ("-m", *arguments)
        self.running.append(Forked([*program], self.folder, self.environ, stdout=1, stderr=2))

    def run_commands(self, block: Block) -> None:
        for line in block.text.splitlines():
            words = shlex.split(line.removesuffix(FAILS), comments=True)
            if line.endswith(FAILS):
                self._compare_failure(block.output, "-m", *words)
            elif words[:2] == ["asyncq", "worker"]:
                self.start(*words[:1], "--quiet", *words[1:])
            elif words[:3] == ["python", "manage.py", "asyncq_worker"]:
                self.start(*words[1:], "--verbosity=0")
            elif words[:2] == ["python", "manage.py"]:
                self._compare(None, *words[1:])
            elif words[:1] == ["asyncq"] and block.output is not None:
                self._compare(block.output, "-m", *words)

    def close(self) -> None:
        for process in self.running:
            process.terminate()
        try:
            for process in self.running:
                process.wait(30)
        finally:
            for process in self.running:
                process.kill()
                process.wait()
            # A worker that was ended before it listened to signals has left the server running.
            embedded.stop(self.folder, force=True)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    project.close()


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if _has_python(page)], ids=_name)
def test_the_blocks_of_a_page_run_and_print_the_output_that_it_shows(page: Path, project: Project) -> None:
    _skip_without_django_tasks(page)
    blocks = _blocks(page)
    is_site = _is_site_of_django(blocks)
    if is_site:
        project.write_site_of_django(blocks)
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block.language == "python" and following is not None and following.fails:
            project.write(block)  # the command below shows what is wrong with it
        elif block.language == "python" and not (is_site and block.output is None):
            project.run(block)
        elif block.language == "toml" and block.text.startswith("# pyproject.toml\n"):
            project.write(block)
        elif block.language == "bash":
            project.run_commands(block)
    project.run_other_tests()


# The example's wait is ten seconds; where no worker runs, a test waits it to its end.
UVICORN = "uvicorn --log-level warning --port {port} "
SITES = {
    "README.md": (f"{UVICORN}web:site", "asyncq --quiet worker web:app", "8"),
    "docs/howto/fastapi.md": (f"{UVICORN}shop:site", "", ""),
    "docs/howto/aiohttp.md": ("aiohttp.web -P {port} shop:make_site", "", ""),
    "docs/howto/flask.md": ("flask --app shop:site run --port {port}", "", ""),
    "docs/howto/litestar.md": (f"{UVICORN}shop:site", "asyncq --quiet worker shop:app", "8"),
    "docs/howto/quart.md": (f"{UVICORN}shop:site", "asyncq --quiet worker shop:app", "8"),
    "docs/howto/django.md": (
        f"{UVICORN}--lifespan off asgi:asgi",
        "manage.py asyncq_worker --verbosity=0 --app=shop.tasks:app",
        '{"sum": 8}',
    ),
    "docs/howto/django-tasks.md": (
        f"{UVICORN}--lifespan off asgi:asgi",
        "manage.py asyncq_worker --verbosity=0",
        '{"sum": 8}',
    ),
}
"""By page: the program of its server, the worker, and the answer if one runs."""


@pytest.mark.parametrize(
    ("page", "has_worker"),
    [
        (page, has_worker)
        for page, (_, worker, _) in SITES.items()
        for has_worker in (True, False)
        if worker or not has_worker
    ],
)
def test_an_endpoint_that_awaits_a_job_answers_with_the_value_or_504(
    page: str, has_worker: bool, project: Project
) -> None:
    _skip_without_django_tasks(ROOT / page)
    server, worker, value = SITES[page]
    port = free_port()
    blocks = _blocks(ROOT / page)
    if _is_site_of_django(blocks):
        project.write_site_of_django(blocks)
    block = next(
        block
        for block in blocks
        if block.language == "python" and ("/sum" in block.text or 'path("sum"' in block.text)
    )
    text = block.text if has_worker else re.sub(r"\b(wait|timeout)=10\b", r"\1=1", block.text)
    assert has_worker or text != block.text
    project.write(replace(block, text=text))

    if has_worker:
        project.start(*shlex.split(worker))
    project.start(*shlex.split(server.format(port=port)))
    response = _ask(f"http://127.0.0.1:{port}/sum?x=4&y=4", deadline=time.monotonic() + 60)

    assert response.status_code == (200 if has_worker else 504), response.text
    assert not has_worker or response.text == value
    assert has_worker or response.elapsed.total_seconds() < 5, "it did not answer when the wait was over"


def _ask(url: str, deadline: float) -> httpx.Response:
    """Returns the site's response, as soon as it listens."""
    import httpx  # here, because each process of the tests imports all test files

    while True:
        try:
            return httpx.get(url, timeout=30)
        except httpx.ConnectError:
            assert time.monotonic() < deadline, f"nobody listens at {url}"
            time.sleep(0.05)


def test_the_tutorial_shows_the_output_of_nearly_every_block() -> None:
    python = [block for block in _blocks(ROOT / "docs/tutorial.md") if block.language == "python"]

    assert [block.file for block in python if block.output is None] == ["tasks.py"]


def test_the_page_about_fastapi_has_the_html_of_the_example_that_a_browser_runs() -> None:
    html = re.compile(r'^PAGE = """.*?^"""$', re.MULTILINE | re.DOTALL)
    [shown] = html.findall((ROOT / "docs/howto/fastapi.md").read_text())
    [run] = html.findall((ROOT / "examples/progress_page.py").read_text())

    assert shown == run


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_links_of_a_page_lead_to_existing_files(page: Path) -> None:
    targets = [(page.parent / target).resolve() for target in LINK.findall(page.read_text())]

    assert [str(target) for target in targets if not target.exists()] == []


INSIDE_A_SERVICE = (
    *("fastapi", "aiohttp", "django", "flask", "jupyter", "middleware", "dependencies"),
    *("testing", "logging", "monitoring", "troubleshooting"),
)


def _linked(page: Path) -> set[Path]:
    return {(page.parent / target).resolve() for target in LINK.findall(page.read_text())}


def test_every_page_is_linked_from_the_index() -> None:
    index = _linked(ROOT / "docs/index.md")
    of_the_api = _linked(ROOT / "docs/reference/api.md")
    others = set(PAGES[2:]) - {ROOT / "docs/index.md"}

    assert [_name(page) for page in sorted(others - index - of_the_api)] == []


@pytest.mark.parametrize("name", INSIDE_A_SERVICE)
def test_a_page_about_asyncq_inside_a_service_is_linked_from_the_readme(name: str) -> None:
    assert ROOT / f"docs/howto/{name}.md" in _linked(ROOT / "README.md")


@pytest.mark.parametrize("name", INSIDE_A_SERVICE)
def test_the_python_on_a_page_about_asyncq_inside_a_service_is_run(name: str) -> None:
    page = ROOT / f"docs/howto/{name}.md"
    blocks = _blocks(page)

    assert page in PAGES
    assert [block.file for block in blocks if block.language == "python"]
    assert {block.language for block in blocks} <= {
        "python",
        "bash",
        "text",
        "toml",
        "ipython",
        "javascript",
        "yaml",
    }


def test_the_table_of_settings_is_the_one_in_the_code() -> None:
    rows = [
        f"| `{name}` | `{variable}` | `{default}` | {doc} |"
        for name, variable, default, doc in config.describe()
    ]

    shown = (ROOT / "docs/howto/deploy.md").read_text()

    assert [row for row in rows if row not in shown] == []
    assert shown.count("| `ASYNCQ_") == len(rows)
