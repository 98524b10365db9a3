"""`asyncq call`, `result get`, `revoke`."""

import json
import re
import signal

import pytest

from asyncq.cli.invocation import Invocation
from asyncq.cli.result import get_command

TASK_WITHOUT_RESULT = """
from asyncq import AsyncQ

app = AsyncQ()


@app.task(ignore_result=True)
async def note(x: int) -> None:
    pass
"""


def test_call_works_without_a_worker_and_leaves_no_server_running(project):
    ended, status = project.run_each(("call", "shop:app", "add", "4", "y=4"), ("server", "status"))
    assert (ended.out, ended.code) == ("8\n", 0), ended
    assert "using the embedded Valkey" in ended.err
    assert (status.code, status.out.splitlines()[0]) == (3, "not running")


def test_arguments_are_json_or_text_and_may_be_negative(project):
    ended = project.run(
        "call", "shop", "echo", "-1", "[2, null]", "word", '"3"', "key=a=b", "n=-1.5", "--json"
    )
    assert json.loads(ended.out) == [[-1, [2, None], "word", "3"], {"key": "a=b", "n": -1.5}], ended


def test_a_private_server_serves_call_too(project):
    ended = project.run("call", "shop", "add", "4", "4", ASYNCQ_URL="memory://")
    assert (ended.out, ended.err, ended.code) == ("8\n", "", 0)


def test_call_of_a_failing_task_shows_the_traceback_and_exits_1(project):
    ended = project.run("call", "shop", "boom", "-q")
    assert (ended.out, ended.code) == ("", 1)
    assert "shop.py" in ended.err
    assert "ValueError: no \\x1b[2J such luck" in ended.err
    assert "\x1b" not in ended.err


def test_call_of_a_task_that_keeps_no_result_sends_nothing_and_names_no_wait(project):
    project.write("quiet.py", TASK_WITHOUT_RESULT)
    refused, listed, sent = project.run_each(
        ("call", "quiet", "note", "1", "-q"),
        ("jobs", "ls", "--app", "quiet", "--json", "-q"),
        ("call", "quiet", "note", "1", "--no-wait", "-q"),
    )
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        "error: quiet.note keeps no result (ignore_result=True), so there is nothing to wait for\n"
        "       add --no-wait: it sends the job, and prints its id\n"
    )
    assert (listed.code, json.loads(listed.out)["items"]) == (0, [])
    assert (sent.code, len(sent.out.strip())) == (0, 24)


def test_call_exits_4_at_its_timeout_and_the_job_stays(project):
    ended = project.run("call", "shop", "slow", "30", "--timeout", "300ms", "-q")
    assert ended.code == 4, ended
    assert "did not end within 0.3 s" in ended.err
    id_ = ended.err.split()[2]
    assert f"wait again: asyncq result get {id_} --app shop --timeout 1m" in ended.err
    revoke, revoked = project.run_each(("revoke", id_, "-q"), ("result", "get", id_, "-q"))
    assert revoke.out == f"{id_}  REVOKED\n"
    assert (revoked.code, revoked.err) == (5, f"error: job {id_} was revoked\n")


def test_revoke_with_parents_also_revokes_the_earlier_steps(project):
    sent = project.python(
        "from shop import add\n"
        "for n in range(2):\n"
        "    last = (add.s(1, 2) | add.s(3) | add.s(4)).delay_sync()\n"
        "    print(last.parent.parent.id, last.parent.id, last.id)\n"
    )
    (first, *_, last), all_ = [line.split() for line in sent.out.splitlines()]
    revoke, alive, revoke_all, *gets = project.run_each(
        ("revoke", last, "-q"),
        ("result", "get", first, "-t", "100ms", "-q"),
        ("revoke", all_[-1], "--parents", "--reason", "too late", "-q"),
        *(("result", "get", id_, "-q") for id_ in all_),
    )
    assert [revoke.out, revoke_all.out] == [f"{last}  REVOKED\n", f"{all_[-1]}  REVOKED\n"]
    assert alive.code == 4, alive
    assert "state: PENDING" in alive.err
    assert [(got.code, got.err) for got in gets] == [
        (5, f"error: job {id_} was revoked: too late\n") for id_ in all_
    ]


def test_call_ends_although_a_plain_function_still_runs(project):
    for timeout in (
        "500ms",
        "4s",
        "30s",
    ):  # on a busy machine the function may not have started within the first
        ended = project.run("call", "shop", "block", "60", "mark", "--timeout", timeout, "-q")
        assert ended.code == 4, ended
        if (project.folder / "mark").exists():
            break
    else:
        pytest.fail("the function never started")


def test_a_running_worker_runs_the_job_of_a_call(project, stop):
    worker = project.worker()
    id_ = project.run("call", "shop", "add", "4", "4", "--no-wait", "-q").out.strip()
    assert project.run("result", "get", id_, "-q").out == "8\n"
    ended = stop(worker, signal.SIGTERM)
    assert "stopped: 1 job done, 0 of them failed, 0 handed back" in ended.err
    assert ended.code == 0


def test_call_does_not_wait_for_a_worker_that_was_killed(project, stop):
    worker = project.worker()
    project.run("call", "shop", "slow", "0", "mark", "--no-wait", "-q")
    project.wait_for("mark")  # it has read from the queue, so it is listed as a reader
    stop(worker, signal.SIGKILL)
    ended = project.run("call", "shop", "add", "4", "4", "--timeout", "10s", "-q")
    assert (ended.out, ended.code) == ("8\n", 0), ended


def test_ctrl_c_ends_a_client_command_with_130_and_sigterm_with_143(project, stop):
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        marker = f"mark{code}"
        process = project.start("call", "shop", "slow", "60", marker)
        project.wait_for(marker)
        ended = stop(process, number)
        assert ended.code == code, ended
        assert "Traceback" not in ended.err
        assert ended.out == ""
        message, get_hint, revoke_hint = ended.err.splitlines()[-3:]
        named = re.fullmatch(
            r"this command no longer waits for job ([0-9a-f]{24})\. .* until a worker takes it\.", message
        )
        assert named is not None, ended
        assert get_hint == f"  its result: asyncq result get {named[1]} --app shop"
        assert revoke_hint == f"  to end it:  asyncq revoke {named[1]} --terminate --app shop"
        later, revoked = project.run_each(
            (*get_hint.split()[3:], "--timeout", "100ms", "-q"), (*revoke_hint.split()[4:], "-q")
        )
        assert "did not end within 0.1 s (state: PENDING)" in later.err
        assert revoked.out == f"{named[1]}  REVOKED\n"


def test_the_suggested_command_names_the_same_server_without_its_password(project):
    id_ = project.run("call", "shop", "slow", "30", "--no-wait", "-q", "--namespace", "other").out.strip()
    ended = project.run("result", "get", id_, "-q", "--namespace", "other", "-t", "100ms", "--app", "shop")
    assert ended.err.splitlines()[1].strip() == (
        f"wait again: asyncq result get {id_} --app shop --namespace other --timeout 1m"
    )
    with_password = Invocation("redis://:secret@db", None, None)
    assert get_command(with_password, "x") == "asyncq result get x --url 'redis://:***@db'"


def test_wrong_arguments_are_a_usage_error(project):
    cases = {
        ("add", "4"): "missing a required argument: 'y'",
        ("ad", "4"): "did you mean 'add'?",
        ("add", "4", "4", "--timeuot", "3"): "there is no option '--timeuot'",
        ("add", "4", "4", "--timeout", "soon"): "'soon' is not a duration",
        ("add", "4", "4", "--queue", "a b"): "cannot be a name",
    }
    ends = project.run_each(*(("call", "shop", *words) for words in cases))
    for ended, message in zip(ends, cases.values(), strict=True):
        assert ended.code == 2, ended
        assert message in ended.err


def test_an_argument_after_two_dashes_is_never_an_option(project):
    assert json.loads(project.run("call", "shop", "echo", "--json", "--", "--json").out) == [["--json"], {}]


def test_an_unknown_id_exits_3(project):
    got, ended = project.run_each(("result", "get", "nope", "-q"), ("revoke", "nope", "--json", "-q"))
    assert (got.out, got.code) == ("", 3)
    assert "no result under the id 'nope'" in got.err
    assert (json.loads(ended.out), ended.code) == ([{"id": "nope", "state": None}], 3)


def test_an_unknown_variable_is_reported_once_for_all_processes_and_apps(project):
    project.write(
        "cores.py",
        "from asyncq import AsyncQ\n\napp, other = AsyncQ(), AsyncQ()\n\n\n"
        '@app.task(executor="process")\ndef double(x: int) -> int:\n    return x * 2\n',
    )
    ended = project.run("call", "cores:app", "double", "4", ASYNCQ_LEESE="3s")
    assert (ended.out, ended.err.count("ASYNCQ_LEESE")) == ("8\n", 1), ended
    assert "did you mean ASYNCQ_LEASE?" in ended.err
    refused = project.run("call", "cores:app", "double", "4", ASYNCQ_LEESE="3s", ASYNCQ_STRICT="1")
    assert (refused.code, "ASYNCQ_LEESE is not a setting" in refused.err) == (78, True), refused


AROUND = """
from contextlib import asynccontextmanager

import asyncq
from asyncq import AsyncQ, Depends


class Tenant(asyncq.Middleware):
    async def on_enqueue(self, call, call_next):
        call.headers["tenant"] = "ada"
        return await call_next(call)


@asynccontextmanager
async def lifespan(app):
    yield {"users": 3}


async def get_users(job=Depends(asyncq.current)):
    yield job.state["users"]


app = AsyncQ(lifespan=lifespan)
app.add_middleware(Tenant())


@app.task
async def greet(word: str, users: int = Depends(get_users)) -> str:
    return f"{word}, {asyncq.current().headers['tenant']} and {users - 1} others"
"""


def test_a_call_goes_through_middleware_and_its_worker_has_the_lifespan_and_dependencies(project):
    project.write("shop.py", AROUND)
    called, wrong = project.run_each(
        ("call", "shop", "greet", "Hello", "-q"), ("call", "shop", "greet", "Hello", "users=3")
    )
    assert (called.code, called.out) == (0, "Hello, ada and 2 others\n"), called
    assert wrong.code == 2
    assert "it takes shop.greet(word: str) -> str" in wrong.err
