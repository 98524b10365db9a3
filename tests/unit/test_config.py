"""Settings: where a value comes from, which values fit, and what is said about one that does not."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from asyncq import config
from asyncq.config import Settings, load, name, seconds, size

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path):
    """Writes the pyproject.toml of a project and gives its folder."""

    def write(text: str) -> Path:
        (tmp_path / "pyproject.toml").write_text(text)
        inner = tmp_path / "src" / "pkg"
        inner.mkdir(parents=True)
        return inner

    return write


def test_an_argument_wins_over_the_environment_over_the_project_over_the_default(project):
    folder = project("[tool.asyncq]\nlease = 4\nnamespace = 'p'\nthreads = 7\n")
    environ = {"ASYNCQ_LEASE": "3s", "ASYNCQ_NAMESPACE": "e"}
    settings = load({"lease": 2.0, "namespace": None}, anchor=folder, environ=environ)
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
def test_a_time_is_shown_as_a_person_would_say_it(time, text):
    assert config.shown(time) == text


def test_no_project_and_no_environment_give_the_defaults(tmp_path):
    assert load({}, anchor=tmp_path, environ={}) == Settings()


def test_an_empty_variable_is_as_good_as_none(tmp_path):
    assert load({}, anchor=tmp_path, environ={"ASYNCQ_LEASE": ""}).lease == 15.0


@pytest.mark.parametrize("source", ["argument", "project"])
def test_an_unknown_option_is_refused_with_its_nearest_neighbour(project, source):
    folder = project("[tool.asyncq]\nleese = 3\n" if source == "project" else "")
    with pytest.raises(ValueError, match="unknown option 'leese'; did you mean 'lease'"):
        load({"leese": 3} if source == "argument" else {}, anchor=folder, environ={})


def test_an_unknown_option_without_neighbour_lists_them_all(tmp_path):
    with pytest.raises(ValueError, match="there are url, namespace"):
        load({"zzzzzz": 3}, anchor=tmp_path, environ={})


@pytest.mark.parametrize(
    ("explicit", "environ", "said"),
    [
        ({"lease": "soon"}, {}, r"AsyncQ\(lease=...\): 'soon' is not a duration"),
        ({}, {"ASYNCQ_LEASE": "soon"}, "ASYNCQ_LEASE: 'soon' is not a duration"),
        ({}, {"ASYNCQ_MAX_PAYLOAD": "big"}, "ASYNCQ_MAX_PAYLOAD: 'big' is not a size"),
        ({"concurrency": 0}, {}, "at least 1"),
        ({"namespace": "a:b"}, {}, "cannot be a name"),
        ({"lease": 0.1}, {}, "too short"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_source(tmp_path, explicit, environ, said):
    with pytest.raises(ValueError, match=said):
        load(explicit, anchor=tmp_path, environ=environ)


def test_every_option_is_described_and_read_from_its_variable(tmp_path):
    described = {option: (variable, doc) for option, variable, _, doc in config.describe()}
    assert set(described) == {field.name for field in dataclasses.fields(Settings)}
    assert all(doc for _, doc in described.values())
    values = {
        "url": "redis://x",
        "namespace": "n",
        "default_queue": "q",
        "strict": "1",
        "result_extended": "1",
    }
    for option, (variable, _) in described.items():
        settings = load({}, anchor=tmp_path, environ={variable: values.get(option, "7")})
        assert str(getattr(settings, option)) in (values.get(option), "7", "7.0", "True")


@pytest.mark.parametrize(
    ("text", "expected"), [("1", True), (" Yes ", True), ("on", True), ("0", False), ("FALSE", False)]
)
def test_a_flag_can_be_written_in_several_ways(tmp_path, text, expected):
    assert load({}, anchor=tmp_path, environ={"ASYNCQ_STRICT": text}).strict is expected


@pytest.mark.parametrize("given", [True, False])
def test_a_flag_given_in_code_wins_over_the_environment(tmp_path, given):
    environ = {"ASYNCQ_STRICT": str(int(not given))}
    assert load({"strict": given}, anchor=tmp_path, environ=environ).strict is given


def test_a_flag_that_says_neither_is_refused(tmp_path):
    with pytest.raises(ValueError, match="ASYNCQ_STRICT: 'maybe' is neither yes nor no"):
        load({}, anchor=tmp_path, environ={"ASYNCQ_STRICT": "maybe"})


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
def test_durations_can_be_written(text, expected):
    assert seconds(text) == expected


@given(st.floats(0, 1e9) | st.integers(0, 10**9))
def test_numbers_and_timedeltas_are_durations(value):
    assert seconds(value) == value
    assert seconds(timedelta(seconds=value)) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    "bad", ["", "x", "5 parsecs", "1h x", "-1", -1, float("nan"), float("inf"), "inf", timedelta(-1), "m5"]
)
def test_what_is_no_duration_is_refused(bad):
    with pytest.raises(ValueError, match="not a duration"):
        seconds(bad)


@pytest.mark.parametrize(
    ("text", "expected"), [("64kb", 65536), ("1 MB", 1048576), (5, 5), ("7b", 7), ("1gb", 1 << 30)]
)
def test_sizes_can_be_written(text, expected):
    assert size(text) == expected


@pytest.mark.parametrize("bad", ["", "x", "-1", "1.5mb", "1tb", 1.5, None])
def test_what_is_no_size_is_refused(bad):
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
def test_what_is_no_name_is_refused(bad):
    with pytest.raises(ValueError, match="cannot be a name"):
        name(bad)
