"""Every error is one line and one fix, never a traceback, and its exit code shows its kind."""

from pathlib import Path

import pytest
from helpers.plain_servers import plain_servers

MODULES = {
    "typo.py": "from asyncq import AsyncQ\napp = AsyncQ(concurency=5)\n",
    "inner.py": "def load():\n    import nosuchthing\nload()\n",
    "syntax.py": "app = = 1\n",
    "exits.py": "import sys\nsys.exit('bye')\n",
    "empty.py": "x = 1\n",
    "two.py": "from asyncq import AsyncQ\na = AsyncQ()\nb = AsyncQ()\n",
    "held.py": "from asyncq import AsyncQ\nclass box: app = AsyncQ()\n",
    "nowhere.py": (
        "from asyncq import AsyncQ\napp = AsyncQ()\n@app.task\ndef buy(order: 'Ordr') -> None: ...\n"
    ),
    "checked.py": (
        "from typing import TYPE_CHECKING\nfrom asyncq import AsyncQ\nif TYPE_CHECKING:\n"
        "    from models import Order\napp = AsyncQ()\n@app.task\ndef buy(order: 'Order') -> None: ...\n"
    ),
    "unclear.py": (
        "from dataclasses import make_dataclass\nfrom asyncq import AsyncQ\napp = AsyncQ()\n"
        "Email, Other = make_dataclass('Email', ['to']), make_dataclass('Email', ['to'])\n"
        "Order = make_dataclass('Order', [('how', Email | Other)])\n"
        "@app.task\ndef buy(order: Order) -> None: ...\n"
    ),
    "pack/__init__.py": "",
    "pack/tasks.py": "from asyncq import AsyncQ\napp = AsyncQ()\n",
}


TARGETS = [
    ("shp:app", "cannot import 'shp': no module named 'shp' (looked in ", "did you mean 'shop'?"),
    ("pack.task", "cannot import 'pack.task': no module named 'pack.task'", "did you mean 'pack.tasks'?"),
    ("shop.tasks", "cannot import 'shop.tasks': no module named 'shop.tasks'", "there is shop:app"),
    ("shop.app", "cannot import 'shop.app': no module named 'shop.app'", "did you mean 'shop:app'?"),
    ("shop.ap", "cannot import 'shop.ap': no module named 'shop.ap'", "did you mean 'shop:app'?"),
    ("pack.tasks.app", "cannot import 'pack.tasks.app'", "did you mean 'pack.tasks:app'?"),
    ("pack.task.app", "cannot import 'pack.task.app'", "did you mean 'pack.tasks.app'?"),
    ("held.box.app", "cannot import 'held.box.app'", "did you mean 'held:box.app'?"),
    ("shop.add", "cannot import 'shop.add': no module named 'shop.add'", "there is shop:app"),
    ("shop.py", "'shop.py' is not the name of a module", "did you mean 'shop:app'?"),
    ("shop:ap", "'shop' has no 'ap'", "did you mean 'shop:app'?"),
    ("shop:add", "shop:add is not an AsyncQ app", "there is shop:app"),
    ("typo", "cannot import 'typo': ValueError: AsyncQ(...): unknown option 'concurency'", "typo.py:2"),
    ("inner", "cannot import 'inner': ModuleNotFoundError: No module named 'nosuchthing'", "inner.py:2"),
    ("syntax", "cannot import 'syntax': SyntaxError", "syntax.py:1"),
    ("exits", "cannot import 'exits': it ended the process", "exits.py:2"),
    ("nowhere", "the annotation of the parameter 'order' of nowhere.buy uses Ordr", "import it there"),
    ("unclear", "the annotation of the parameter 'order' of unclear.buy: the field how of", "asyncq_alias"),
    ("checked", "cannot import 'checked': TypeError: the annotation of", "from models import Order"),
    ("empty", "'empty' holds no AsyncQ app", "make one: app = AsyncQ()"),
    ("two", "'two' holds 2 apps", "there is two:a, two:b"),
]


def test_a_wrong_target_is_reported_with_a_fix(project):
    for name, text in MODULES.items():
        project.write(name, text)
    ends = project.run_each(*(("worker", target) for target, _, _ in TARGETS))
    for ended, (_, message, fix) in zip(ends, TARGETS, strict=True):
        assert ended.code == 78, ended
        assert ended.err.startswith(f"error: {message}")
        assert fix in ended.err
        assert "Traceback" not in ended.err
        assert ended.err.count("\n") <= 2


def test_every_command_suggests_the_right_spelling_for_a_target_with_a_dot(project):
    app = ("--app", "shop.app")
    commands = (
        ("worker", "shop.app"),
        ("call", "shop.app", "add", "1", "2"),
        ("result", "get", "x", *app),
        ("revoke", "x", *app),
        ("dlq", "ls", *app),
        ("server", "status", *app),
    )
    for words, ended in zip(commands, project.run_each(*commands), strict=True):
        assert (ended.code, "did you mean 'shop:app'?" in ended.err) == (78, True), (words, ended)


def test_a_worker_without_an_app_exits_78(project):
    ended = project.run("worker")
    assert (ended.code, ended.err.splitlines()[0]) == (78, "error: which app?")


@pytest.mark.parametrize(
    ("environ", "code", "message"),
    [
        ({"ASYNCQ_URL": "foo://x"}, 78, "'foo://x' is not a server URL"),
        ({"ASYNCQ_URL": "redis://me:sec/ret@db"}, 78, "'redis://me:***@db': the host is not clear\n"),
        ({"ASYNCQ_URL": "redis://db/0?foo=1"}, 78, "'redis://db/0?foo=1': there is no option 'foo'\n"),
        (
            {"ASYNCQ_URL": "redis://db/x"},
            78,
            "'redis://db/x': the database 'x' is not a whole number, 0 or more\n",
        ),
        ({"ASYNCQ_GRACE": "soon"}, 78, "ASYNCQ_GRACE: 'soon' is not a duration"),
        ({"ASYNCQ_EMBEDDED": "never"}, 78, "ASYNCQ_EMBEDDED=never"),
        ({"ASYNCQ_URL": "redis://me:secret@127.0.0.1:1"}, 69, "no server at redis://me:***@127.0.0.1:1"),
    ],
)
def test_a_wrong_server_is_reported_without_its_password(project, environ, code, message):
    ended = project.run("call", "shop", "add", "1", "1", ASYNCQ_OPERATION_TIMEOUT="1", **environ)
    assert (ended.code, message in ended.err) == (code, True), ended
    assert "Traceback" not in ended.err
    assert "secret" not in ended.err
    assert len(ended.err.splitlines()) <= 2


@pytest.fixture
def serve(tmp_path):
    """Starts servers with the given options and gives their ports; all end with the test."""
    with plain_servers(tmp_path) as servers:
        yield lambda *options: servers.start("--save", "", *options)


def test_a_server_that_asyncq_cannot_use_exits_78(project, serve):
    cluster, small = serve("--cluster-enabled", "yes"), serve("--databases", "2")
    cases = {
        f"redis://127.0.0.1:{cluster}": "this is a node of a Cluster",
        f"redis://127.0.0.1:{small}/2": "the server has no database 2",
    }
    for url, message in cases.items():
        for words in (("worker", "shop"), ("call", "shop", "add", "1", "2"), ("result", "get", "x")):
            ended = project.run(*words, ASYNCQ_URL=url)
            assert (ended.code, message in ended.err) == (78, True), ended
            assert len(ended.err.splitlines()) == 2


def test_a_refused_password_exits_77(project, serve):
    locked = serve("--requirepass", "right")
    for user in ("", ":wrong@"):
        ended = project.run("result", "get", "x", ASYNCQ_URL=f"redis://{user}127.0.0.1:{locked}")
        assert (ended.code, "wrong" in ended.err) == (77, False), ended


def test_a_bug_exits_70_and_writes_a_crash_file(project):
    project.write("bug.py", "from asyncq import AsyncQ\napp = AsyncQ('memory://')\napp.tasks = None\n")
    ended = project.run("call", "bug", "add")
    assert (ended.code, "Traceback" in ended.err) == (70, False), ended
    file = Path(ended.err.splitlines()[1].rpartition(" ")[2])
    assert "Traceback" in file.read_text()
    file.unlink()


def test_a_reader_that_closed_the_pipe_is_not_an_error(project):
    for unbuffered in ("", "1"):
        process = project.start_fresh("version", PYTHONUNBUFFERED=unbuffered)
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
