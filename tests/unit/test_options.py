"""Options of tasks and calls: signatures, docstrings, flags and messages agree with the one table."""

from __future__ import annotations

import inspect
import re
import typing
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest
import typer

from asyncq import AsyncQ, Retry, Task, wire
from asyncq.cli.command_tree import cli
from asyncq.tasks.options import FIRST, LAST, TABLE, Options

OF_TASK = {name for name, option in TABLE.items() if option.giver != "call"}
OF_CALL = {name for name, option in TABLE.items() if option.giver != "task"}
OF_SCHEDULE = {"every", "cron", "tz", "catch_up", "overlap", "jitter", "start", "until", "max_runs"}
TYPES = {field.name: field.type for field in fields(Options)}

VALUES = {
    "queue": "urgent",
    "priority": 3,
    "task_id": "mine",
    "key": "invoice 1",
    "headers": {"trace": "abc"},
    "ignore_result": True,
    "result_ttl": 90,
    "expires": 30,
    "wait": 2,
    "countdown": 5,
    "eta": timedelta(seconds=5),
    "deadline": datetime(2030, 1, 1, tzinfo=UTC),
    "timeout": 1.5,
    "retry": Retry(max_retries=1),
    "name": "shop.add",
    "soft_timeout": 1,
    "executor": "process",
    "track_started": False,
    "rate_limit": "5/s",
    "concurrency": 2,
    "every": 30,
    "cron": "0 3 * * *",
    "tz": "Europe/Paris",
    "catch_up": "all",
    "overlap": True,
    "jitter": 5,
    "start": datetime(2030, 1, 1, tzinfo=UTC),
    "until": datetime(2031, 1, 1, tzinfo=UTC),
    "max_runs": 3,
}
"""One value for each option except the callbacks. No value is the default."""

WRONG = {
    "name": 5,
    "queue": "a b",
    "priority": 10,
    "task_id": "a b",
    "key": "",
    "headers": [1],
    "result_ttl": -1,
    "expires": datetime(2030, 1, 1),  # noqa: DTZ001  it must be refused, because it has no time zone
    "wait": "soon",
    "countdown": True,
    "eta": -1,
    "deadline": float("nan"),
    "timeout": "x",
    "soft_timeout": -1,
    "retry": 3,
    "link": 5,
    "link_error": "note",
    "executor": "loop",
    "rate_limit": "often",
    "concurrency": 0,
    "every": 0.5,
    "cron": "0 25 * * *",
    "tz": 5,
    "catch_up": "some",
    "overlap": "yes",
    "jitter": -1,
    "start": 5,
    "until": datetime(2031, 1, 1),  # noqa: DTZ001  as expires
    "max_runs": 0,
}


@pytest.fixture
def app() -> AsyncQ:
    return AsyncQ("memory://")


@pytest.fixture
def add(app):
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    return add


def parameters_of(function) -> dict[str, inspect.Parameter]:
    """Returns the parameters that are options: those that can be given only by name."""
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def signatures_of_task():
    overloads = typing.get_overloads(AsyncQ.task)
    with_options = [function for function in overloads if parameters_of(function)]
    assert len(with_options) == 1, "the overload for `@app.task(...)`"
    return [AsyncQ.task, *with_options]


def entries_of(function) -> dict[str, str]:
    """Returns the text of the docstring for each argument."""
    [section] = re.findall(r"^Args:\n((?: {4}.*\n)+)", inspect.getdoc(function), re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def test_each_option_of_a_task_is_in_the_table_with_its_type_and_default():
    for function in signatures_of_task():
        found = parameters_of(function)
        assert set(found) == OF_TASK
        assert {name: parameter.default for name, parameter in found.items()} == {
            name: TABLE[name].default for name in OF_TASK
        }
        # A date would be the same time for all calls of the task, so a task takes only seconds.
        assert {name: parameter.annotation for name, parameter in found.items()} == {
            name: TYPES[name].replace(" | datetime", "") for name in OF_TASK
        }


def test_each_option_of_a_call_is_in_the_table_with_its_type_and_has_no_default():
    found = parameters_of(Task.options)
    assert set(found) == OF_CALL
    assert {parameter.default for parameter in found.values()} == {None}
    # The table may not import workflows, so it knows them by their methods.
    assert {
        name: parameter.annotation.replace("Workflow[Any]", "Callback").removesuffix(" | None")
        for name, parameter in found.items()
    } == {name: TYPES[name].removesuffix(" | None") for name in OF_CALL}


def test_docstrings_describe_each_option_as_the_table_does():
    of_task = entries_of(AsyncQ.task)
    del of_task["function"]
    assert of_task == {name: TABLE[name].text for name in OF_TASK}
    assert entries_of(Task.options) == {name: TABLE[name].text for name in OF_CALL}


def test_flags_of_the_command_line_describe_each_option_as_the_table_does():
    call = typer.main.get_command(cli).commands["call"]
    # The command's --timeout says how long the command waits. It is not an option of the call.
    flags = {
        param.name: param
        for param in call.params
        if param.param_type_name == "option" and param.name in OF_CALL and param.name != "timeout"
    }
    assert {name: param.help for name, param in flags.items()} == {
        name: option.flag for name, option in TABLE.items() if option.flag
    }
    assert all(param.opts == [f"--{name}"] for name, param in flags.items())


def test_each_option_sets_a_field_that_jobs_have():
    known = {field.name for field in fields(wire.Job)}
    assert {option.job for option in TABLE.values()} - {""} <= known
    # A rare field comes from an option, from the call's position in a workflow, or from the job that makes
    # the call.
    of_others = {"parent_id", "root_id", "ancestors", "value_template", "dependents"}
    assert {extra.field for extra in wire.EXTRAS} - {option.job for option in TABLE.values()} == of_others


def test_these_tests_have_a_value_for_each_option():
    assert set(VALUES) == set(TABLE) - {"link", "link_error"}
    assert set(WRONG) == set(TABLE) - {"ignore_result", "track_started"}, "those two take any truth value"


@pytest.mark.parametrize("name", sorted(OF_CALL - {"link", "link_error"}))
def test_only_the_given_options_of_a_call_are_stored(add, name):
    options = add.options(**{name: VALUES[name]}).builder.options
    assert set(vars(options)) == {name}
    assert add.builder.options == Options(), "the task itself stays as it was"


@pytest.mark.parametrize("name", sorted(OF_TASK - OF_SCHEDULE - {"executor", "soft_timeout"}))
def test_an_option_of_a_task_is_stored(app, name):
    @app.task(**{name: VALUES[name]})
    async def one() -> None: ...

    assert set(vars(one.builder.options)) == {name}
    assert one.options(wait=1).builder.options == Options(wait=1, **{name: VALUES[name]})


@pytest.mark.parametrize("name", sorted(OF_SCHEDULE))
def test_an_option_of_schedules_is_stored_with_a_rule_and_refused_without_one(app, name):
    rule = {} if name == "every" else {"cron": VALUES["cron"]}

    @app.task(**rule, **({} if name in rule else {name: VALUES[name]}))
    async def one() -> None: ...

    assert set(vars(one.builder.options)) == {name, *rule}
    if name not in {"every", "cron"}:
        with pytest.raises(TypeError, match=f"{name}= is an option of schedules"):
            app.task(**{name: VALUES[name]})(lambda: None)


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_wrong_value_is_refused_with_the_name_of_the_option_and_the_value(app, add, name):
    def give() -> None:
        if name in OF_CALL:
            add.options(**{name: WRONG[name]})
        else:
            app.task(**{name: WRONG[name]})(lambda: None)

    with pytest.raises((ValueError, TypeError)) as caught:
        give()
    text = str(caught.value)
    assert name in text or name == "queue"
    assert repr(WRONG[name]) in text


def test_a_call_can_set_an_option_of_its_task_back_to_the_default(app):
    @app.task(priority=5, ignore_result=True)
    async def urgent() -> None: ...

    assert urgent.options(priority=0, ignore_result=False).builder.options == Options()
    assert urgent.options(priority=None, ignore_result=None).builder.options == urgent.builder.options


def test_the_start_time_that_is_given_last_replaces_the_earlier_one():
    later = Options(countdown=5)
    assert later.with_call({"eta": 7}) == Options(eta=7)
    assert later.with_call({"eta": 7}).with_call({"countdown": 1}) == Options(countdown=1)
    with pytest.raises(ValueError, match="countdown= and eta= both say when"):
        later.with_call({"countdown": 1, "eta": 7})


def test_a_key_and_an_id_exclude_each_other_also_when_given_one_after_the_other():
    for one, other in (({"key": "a"}, {"task_id": "b"}), ({"task_id": "b"}, {"key": "a"})):
        with pytest.raises(ValueError, match="key= and task_id= both say"):
            Options(**one).with_call(other)


def job_of(options: Options, *, is_call: bool = True) -> wire.Job:
    job = wire.Job("id", "add", "default", b"", "request", "", 0, 60_000)
    for put, value in options.puts(is_call=is_call):
        put(job, value)
    return job


def test_a_job_expires_at_the_earlier_of_expires_and_deadline():
    near, far = datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
    for first, second in (("expires", "deadline"), ("deadline", "expires")):
        for expires, deadline in ((near, far), (far, near)):
            ends = {"expires": expires, "deadline": deadline}
            job = job_of(Options(**{first: ends[first]}).with_call({second: ends[second]}))
            assert (job.expires, job.deadline) == (near.timestamp() * 1000, deadline.timestamp() * 1000)


def test_seconds_from_now_count_from_the_enqueue_time_of_the_job():
    """The clock may advance by a millisecond between the two times."""
    assert job_of(Options(eta=0)).wait is None
    job = job_of(Options(eta=2, expires=30, deadline=40))
    assert (job.wait, job.expires - job.enqueued, job.deadline - job.enqueued) == (2000, 30_000, 40_000)


def test_options_that_workers_know_from_the_task_are_sent_only_if_the_call_sets_them():
    own = Options(expires=60, timeout=5, retry=Retry())
    job = job_of(own, is_call=False)
    assert job.expires is not None
    assert (job.timeout, job.retry) == (None, None)
    job = job_of(own.with_call({"timeout": 2}))
    assert job.expires is not None
    assert (job.timeout, job.retry) == (2000, Retry().to_wire())


@pytest.mark.parametrize("name", sorted(VALUES))
def test_a_call_is_bare_only_if_its_message_has_only_fields_that_every_job_has(name):
    options = Options(**{name: VALUES[name]})
    in_every_job = {"queue", "result_ttl"}
    not_of_a_job = {"name", "wait", "soft_timeout", "executor", "rate_limit", "concurrency"}
    not_of_a_job |= OF_SCHEDULE
    assert options.is_bare(is_call=True) == (name in in_every_job | not_of_a_job)
    known_to_workers = {"timeout", "retry"}
    assert options.is_bare(is_call=False) == (name in in_every_job | not_of_a_job | known_to_workers)


def test_options_of_a_chain_go_to_the_steps_that_the_table_says(add):
    workflow = add.s(1, 1) | add.s(1) | add.s(1)
    for name in OF_CALL - {"link", "link_error"}:
        changed = workflow.options(**{name: VALUES[name]})
        is_set = [name in vars(step.task.builder.options) for step in changed.steps]
        assert is_set == [name not in LAST, name not in FIRST | LAST, name not in FIRST], name
