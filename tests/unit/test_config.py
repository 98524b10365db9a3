"""Settings: where a value comes from, which values are accepted, and what the error about
another value says.
"""

from __future__ import annotations

import dataclasses
import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from asyncq import AsyncQ, Worker, config
from asyncq.config import Settings, load, name, seconds, size


@pytest.fixture
def project(tmp_path: Path):
    """Writes the pyproject.toml of a project, and returns its folder."""

    def write(text: str) -> Path:
        (tmp_path / "pyproject.toml").write_text(text)
        inner = tmp_path / "src" / "pkg"
        inner.mkdir(parents=True)
        return inner

    return write


def test_settings_come_from_arguments_then_environment_then_project_then_defaults(project):
    folder = project("[tool.asyncq]\nlease = 4\nnamespace = 'p'\nthreads = 7\n")
    environ = {"ASYNCQ_LEASE": "3s", "ASYNCQ_NAMESPACE": "e"}
    settings = load({"lease": 2.0, "namespace": None}, project_root=folder, environ=environ)
    assert (settings.lease, settings.namespace, settings.threads, settings.grace) == (2.0, "e", 7, 25.0)


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0, "0 s"),
        (0.1, "0.1 s"),
        (0.0998716, "0.1 s"),
        (0.125, "0.125 s"),
        (9.997, "10 s"),
        (99.87, "100 s"),
        (12.345, "12 s"),
        (1234.5, "1,234 s"),
        (86400, "86,400 s"),
        (float("inf"), "inf s"),
        (None, "for ever"),
    ],
)
def test_a_time_is_shown_in_a_readable_form(time, text):
    assert config.shown(time) == text


def test_without_project_and_environment_the_defaults_hold(tmp_path):
    assert load({}, project_root=tmp_path, environ={}) == Settings()


def test_an_empty_environment_variable_is_ignored(tmp_path):
    assert load({}, project_root=tmp_path, environ={"ASYNCQ_LEASE": ""}).lease == 15.0


@pytest.mark.parametrize("source", ["argument", "project"])
def test_an_unknown_option_is_refused_with_the_most_similar_option(project, source):
    folder = project("[tool.asyncq]\nleese = 3\n" if source == "project" else "")
    with pytest.raises(ValueError, match="unknown option 'leese'; did you mean 'lease'"):
        load({"leese": 3} if source == "argument" else {}, project_root=folder, environ={})


def test_an_unknown_option_without_a_similar_one_is_refused_with_a_list_of_all(tmp_path):
    with pytest.raises(ValueError, match="the options are url, namespace"):
        load({"zzzzzz": 3}, project_root=tmp_path, environ={})


@pytest.mark.parametrize(
    ("explicit", "environ", "output"),
    [
        ({"lease": "soon"}, {}, r"AsyncQ\(lease=...\): 'soon' is not a duration"),
        ({}, {"ASYNCQ_LEASE": "soon"}, "ASYNCQ_LEASE: 'soon' is not a duration"),
        ({}, {"ASYNCQ_MAX_PAYLOAD": "big"}, "ASYNCQ_MAX_PAYLOAD: 'big' is not a size"),
        ({"concurrency": 0}, {}, "at least 1"),
        ({"namespace": "a:b"}, {}, "cannot be a name"),
        ({"lease": 0.1}, {}, "too short"),
        ({"lease": -1}, {}, "-1 is not a duration: it must be a number of seconds from 0.5 to a century"),
        ({"grace": -1}, {}, "it must be a number of seconds from 0 to a century"),
        ({"operation_timeout": -1}, {}, "it must be a number of seconds above 0, up to a century"),
        ({"url": "memory://x?y=1"}, {}, "nothing may follow memory://"),
        ({"url": "embedded:///srv/shop?y=1"}, {}, "embedded:// has no options"),
        ({"url": " Embedded://#x"}, {}, "embedded:// has no options"),
    ],
)
def test_an_invalid_value_is_refused_with_its_source(tmp_path, explicit, environ, output):
    with pytest.raises(ValueError, match=output):
        load(explicit, project_root=tmp_path, environ=environ)


FLAGS = ["result_extended", "strict", "trust_models", "encrypt"]
TEXTS = ["url", "namespace", "default_queue"]
ZERO_HAS_A_MEANING = [
    *("result_ttl", "dead_ttl", "full_wait", "processes", "history", "stall_warning", "grace", "stream_idle"),
    *("unknown_task_wait", "shards", "max_age", "replicas"),
]
NUMBERS = [
    field.name for field in dataclasses.fields(Settings) if field.name not in (*TEXTS, *FLAGS, "secrets")
]
SECRETS = "the secret of an app, and another of it"


def refusals(tmp_path, option: str, values: list[object]) -> None:
    """Each value is refused with a sentence that names the option and the value."""
    for value in values:
        with pytest.raises(ValueError, match=rf"^AsyncQ\({option}=...\): .") as caught:
            load({option: value}, project_root=tmp_path, environ={})
        assert str(value) in str(caught.value)
        assert not re.search(r"supported|argument|literal|convert|NoneType", str(caught.value))


@pytest.mark.parametrize("option", NUMBERS)
def test_an_invalid_number_is_refused(tmp_path, option):
    nonsense = [-1, -0.5, float("nan"), float("inf"), "nan", "inf", True, [1], {}, b"5", "", "a b"]
    refusals(tmp_path, option, nonsense)
    if option in ZERO_HAS_A_MEANING:
        assert getattr(load({option: 0}, project_root=tmp_path, environ={}), option) == 0
    else:
        refusals(tmp_path, option, [0, "0"])


@pytest.mark.parametrize("option", TEXTS + FLAGS)
def test_a_value_that_is_not_a_text_or_not_a_flag_is_refused(tmp_path, option):
    refusals(tmp_path, option, [5, 0.5, [1], {}, b"5", "", " "] + [True] * (option in TEXTS))


def test_a_whole_number_may_be_a_float_but_not_a_fraction(tmp_path):
    assert load({"max_length": 1e6}, project_root=tmp_path, environ={}).max_length == 1_000_000
    with pytest.raises(ValueError, match=r"2\.5 is not a whole number"):
        load({"concurrency": 2.5}, project_root=tmp_path, environ={})


def test_every_option_is_described_and_read_from_its_environment_variable(tmp_path):
    described = {option: (variable, doc) for option, variable, _, doc in config.describe()}
    assert set(described) == {field.name for field in dataclasses.fields(Settings)}
    assert all(doc for _, doc in described.values())
    values = {
        "url": "redis://x",
        "namespace": "n",
        "default_queue": "q",
        "strict": "1",
        "result_extended": "1",
        "trust_models": "1",
        "encrypt": "1",
        "secrets": SECRETS,
    }
    for option, (variable, _) in described.items():
        environ = {"ASYNCQ_SECRETS": SECRETS, variable: values.get(option, "7")}
        settings = load({}, project_root=tmp_path, environ=environ)
        shown = "(<secret>, <secret>)" if option == "secrets" else values.get(option)
        assert str(getattr(settings, option)) in (shown, "7", "7.0", "True")


@pytest.mark.parametrize(
    ("text", "expected"), [("1", True), (" Yes ", True), ("on", True), ("0", False), ("FALSE", False)]
)
def test_a_flag_can_be_written_in_several_ways(tmp_path, text, expected):
    assert load({}, project_root=tmp_path, environ={"ASYNCQ_STRICT": text}).strict is expected


@pytest.mark.parametrize("given", [True, False])
def test_a_flag_given_in_code_overrides_the_environment(tmp_path, given):
    environ = {"ASYNCQ_STRICT": str(int(not given))}
    assert load({"strict": given}, project_root=tmp_path, environ=environ).strict is given


def test_a_flag_that_is_neither_yes_nor_no_is_refused(tmp_path):
    with pytest.raises(ValueError, match="ASYNCQ_STRICT: 'maybe' is neither yes nor no"):
        load({}, project_root=tmp_path, environ={"ASYNCQ_STRICT": "maybe"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30", 30),
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172800),
        (" 1.5H ", 5400),
        ("0", 0),
    ],
)
def test_texts_with_units_are_durations(text, expected):
    assert seconds(text) == expected


@given(st.floats(0, 1e9) | st.integers(0, 10**9))
def test_numbers_and_timedeltas_are_durations(value):
    assert seconds(value) == value
    assert seconds(timedelta(seconds=value)) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    "bad",
    [
        *("", "x", "5 parsecs", "1h x", "-1", "inf", "nan", "m5"),
        *(-1, float("nan"), float("inf"), timedelta(-1), True, False, None, [5], b"5", {}, 10**400),
    ],
)
def test_a_value_that_is_not_a_duration_is_refused(bad):
    with pytest.raises(ValueError, match="not a duration"):
        seconds(bad)


@pytest.mark.parametrize(
    ("text", "expected"), [("64kb", 65536), ("1 MB", 1048576), (5, 5), ("7b", 7), ("1gb", 1 << 30)]
)
def test_texts_with_units_are_sizes(text, expected):
    assert size(text) == expected


@pytest.mark.parametrize("bad", ["", "x", "-1", "1.5mb", "1tb", 1.5, None, True, -1, float("nan"), [5], b"5"])
def test_a_value_that_is_not_a_size_is_refused(bad):
    with pytest.raises(ValueError, match="not a size"):
        size(bad)


@given(st.text(max_size=5))
def test_a_name_never_breaks_the_layout_of_keys(text):
    try:
        assert name(text) == text
    except ValueError:
        return
    assert not set(text) & set(" :{}!\n\t")


@pytest.mark.parametrize("bad", ["", "x" * 101, "a\n", None, 5, b"x"])
def test_an_invalid_name_is_refused(bad):
    with pytest.raises(ValueError, match="cannot be a name"):
        name(bad)


@pytest.fixture
def warnings(caplog, monkeypatch):
    """The warnings of this process from now on, as if it had just started."""
    monkeypatch.setattr(config, "_warned_of", set())
    return lambda: [record.getMessage() for record in caplog.records if record.name == "asyncq"]


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("ASYNCQ_CONCURENCY", "did you mean ASYNCQ_CONCURRENCY?"),
        ("ASYNCQ_REDIS_URL", "did you mean ASYNCQ_URL?"),
        ("ASYNCQ_QUEUE", "did you mean ASYNCQ_DEFAULT_QUEUE?"),
        ("ASYNCQ_grace", "did you mean ASYNCQ_GRACE?"),
        ("ASYNCQ_XYZ", "see the list of settings"),
    ],
)
def test_an_unknown_variable_is_logged_once_and_refused_with_strict(tmp_path, warnings, variable, hint):
    for _ in range(2):
        load({}, project_root=tmp_path, environ={variable: "1", "ASYNCQ_LEASE": "3"})
    message = f"the environment variable {variable} is not a setting and changes nothing; {hint}"
    assert warnings() == [message]
    with pytest.raises(ValueError, match=f"{variable} is not a setting"):
        load({"strict": True}, project_root=tmp_path, environ={variable: "1"})


def test_an_unknown_variable_is_refused_when_strict_is_set_later(tmp_path, monkeypatch):
    settings = load({}, project_root=tmp_path, environ={})
    config.replace(settings, {"strict": True})
    monkeypatch.setenv("ASYNCQ_LEESE", "3")
    with pytest.raises(ValueError, match=r"ASYNCQ_LEESE .*did you mean ASYNCQ_LEASE"):
        config.replace(settings, {"strict": True})


INJECTED = {
    "ASYNCQ_SERVICE_HOST": "10.0.0.11",
    "ASYNCQ_SERVICE_PORT": "6379",
    "ASYNCQ_SERVICE_PORT_REDIS": "6379",
    "ASYNCQ_PORT": "tcp://10.0.0.11:6379",
    "ASYNCQ_PORT_6379_TCP": "tcp://10.0.0.11:6379",
    "ASYNCQ_PORT_6379_TCP_PROTO": "tcp",
    "ASYNCQ_PORT_6379_TCP_PORT": "6379",
    "ASYNCQ_PORT_6379_TCP_ADDR": "10.0.0.11",
    "ASYNCQ_REDIS_SERVICE_HOST": "10.0.0.11",
    "ASYNCQ_REDIS_PORT_53_UDP_ADDR": "10.0.0.11",
    "ASYNCQ_NAME": "/web/asyncq",
    "ASYNCQ_ENV_REDIS_VERSION": "7.0",
}


def test_variables_of_orchestrators_and_of_other_parts_of_asyncq_are_known(tmp_path, warnings):
    others = {f"ASYNCQ_{name}": "1" for name in config.OTHER_VARIABLES}
    load(
        {"strict": True},
        project_root=tmp_path,
        environ={**INJECTED, **others, "ASYNCQ_WORSE": "", "ASYNCQD": "1"},
    )
    assert warnings() == []


def test_every_variable_that_the_code_names_is_known():
    package = Path(config.__file__).parent
    named = {
        name
        for file in package.rglob("*.py")
        for name in re.findall(r"(?<!_)ASYNCQ_([A-Z_]+)", file.read_text("utf-8"))
    }
    settings = {field.name.upper() for field in dataclasses.fields(Settings)}
    assert named - settings - set(INJECTED) == set(config.OTHER_VARIABLES)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, "many"])
def test_a_worker_refuses_an_invalid_concurrency(wrong):
    with pytest.raises(ValueError, match=re.escape(f"concurrency={wrong!r} is ")):
        Worker(AsyncQ("memory://"), concurrency=wrong)


@pytest.mark.parametrize(
    ("given", "accepted"),
    [
        (" redis://db:6379/0\n", "redis://db:6379/0"),
        ("REDISS://Me:Pa@DB/0", "rediss://Me:Pa@DB/0"),
        ("Memory://", "memory://"),
        ("embedded:///srv/Shop", "embedded:///srv/Shop"),
        ("db:6379", "db:6379"),
    ],
)
def test_a_url_may_have_spaces_around_it_and_a_scheme_in_capitals(tmp_path, given, accepted):
    assert config.load({"url": given}, project_root=tmp_path, environ={}).url == accepted
