"""The page of the protocol agrees with the code, and its examples can be decoded."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from asyncq import failures, wire
from asyncq.broker import consumer
from asyncq.broker.schema import keys, records
from asyncq.broker.transport import scripts, server_error
from asyncq.errors import RemoteError
from asyncq.serializers import loads
from asyncq.states import TRANSITIONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
LUA = ROOT / "asyncq/broker/lua"
NAMESPACE = "ns"


def section(title: str) -> str:
    """Returns the text under a heading, up to the next heading of the same or a higher level."""
    heading = re.search(rf"^(#+) {re.escape(title)}$", PAGE, re.MULTILINE)
    assert heading is not None, f"there is no section {title!r}"
    rest = PAGE[heading.end() :]
    following = re.search(rf"^#{{1,{len(heading[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def column(text: str, number: int) -> list[str]:
    """Returns a column of the tables in a text, without heads. The first column is 0."""
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [row[number].strip() for row in rows if not set(row[0]) <= {"-", " "}]


def examples(kind: str) -> list[bytes]:
    found = [ast.literal_eval(text) for text in re.findall(rf"^{kind} +(b'.*')$", PAGE, re.MULTILINE)]
    assert found, f"there is no example of {kind}"
    return found


@pytest.mark.parametrize("name", sorted(scripts.load()))
def test_every_script_has_a_section_with_its_header(name):
    header = re.findall(
        r"^-- ((?:KEYS|ARGV|RETURNS|FLAGS): .*)$", (LUA / f"{name}.lua").read_text(), re.MULTILINE
    )
    assert re.findall(r"^```text\n(.*?)\n```$", section(name), re.MULTILINE | re.DOTALL) == [
        "\n".join(header)
    ]


def test_every_section_about_a_script_describes_an_existing_script():
    assert set(re.findall(r"^### (.*)$", section("Scripts"), re.MULTILINE)) == set(scripts.load())


def test_every_key_and_channel_is_in_the_tables():
    names = keys.Keys(NAMESPACE)
    built = {
        getattr(names, field.name).replace(names.tag, "T")
        for field in fields(keys.Keys)
        if field.name not in {"namespace", "shard", "tag", "key_prefix"}
    }
    built.update(names.stream(sign).replace(names.tag, "T") for sign in (keys.LAST_ATTEMPT, keys.LEVEL))
    shown = {re.sub(r"<[\w ]+>|`", "", name) for name in column(section("Keys"), 0)} - {"Key", "Channel"}
    assert shown == built
    assert names.tag.replace(NAMESPACE, "<namespace>").replace(":0}", ":<shard>}") in section("Keys")


def test_every_status_code_is_listed_with_its_state():
    rows = dict(re.findall(r"^\| `(\w)` \|.*\| ([^|]*) \|$", section("Record"), re.MULTILINE))
    for letter, state in wire.STATE_OF.items():
        assert rows[letter].startswith(state), letter
    assert set(rows) == {*wire.STATE_OF, wire.TOMBSTONE}


def test_the_diagram_shows_the_transitions_of_the_table():
    shown = re.findall(r"^    (\w+) --> (\w+)$", section("States"), re.MULTILINE)
    assert len(shown) == len(set(shown))
    assert set(shown) == {(state, after) for state, following in TRANSITIONS.items() for after in following}


def test_the_table_below_the_diagram_has_every_transition():
    shown = {
        (before, after)
        for befores, afters in zip(column(section("States"), 0), column(section("States"), 1), strict=True)
        for before in befores.split(", ")
        for after in afters.split(", ")
    } - {("From", "To")}
    assert shown == {(state, after) for state, following in TRANSITIONS.items() for after in following}


def test_the_page_lists_the_fields_of_a_message_as_the_code_does():
    more = " ".join(section("Message").split("more: ", 1)[1].split("```", 1)[0].split())
    assert more == ", ".join(f"{extra.key} {extra.text}" for extra in wire.EXTRAS)


def test_the_page_lists_the_keys_of_a_failure():
    error = ExceptionGroup("several", [OSError(2, "no such file"), json.JSONDecodeError("m", "x" * 2**20, 0)])
    error.__cause__, error.__context__ = KeyError("k" * 10_000), RuntimeError("r")
    error.add_note("a note")
    error.code = 3
    error.exceptions[0].__context__ = RemoteError("shop.Gone", ("no",), "where")
    sent = {key for node in loads(failures.encode(error)) for key in node}
    shown = set(re.findall(r"`(\w+)`", " ".join(column(section("Failure"), 0))))
    assert shown - sent == {"left_out"}
    assert sent <= shown
    [example] = examples("failure")
    assert repr(failures.decode(example).rebuild()) == "LookupError('lamp')"
    for name in ("MAX_EXCEPTIONS", "MAX_LINKS", "MAX_BASES", "MAX_NOTES", "MAX_LEFT_OUT"):
        assert f" {getattr(failures.texts, name)}" in section("Failure"), name


def test_every_script_has_its_row_in_the_crash_table():
    steps = set(re.findall(r"\w+", " ".join(column(section("Crash table"), 0))))
    assert set(scripts.load()) - steps == set()


def test_every_error_code_is_in_the_row_of_its_action():
    rows = dict(
        zip(
            column(section("Errors of the server"), 0),
            column(section("Errors of the server"), 1),
            strict=True,
        )
    )
    for code, action in server_error.ERROR_ACTIONS.items():
        [row] = [row for row in rows if f"`{code}`" in row]
        others = {known for known in server_error.ERROR_ACTIONS if f"`{known}`" in row}
        assert {server_error.ERROR_ACTIONS[other] for other in others} == {action}, code


def test_the_table_of_hazards_names_exactly_the_mutants_of_the_model():
    tree = ast.parse((ROOT / "tests/model/mutants.py").read_text(encoding="utf-8"))
    mutants = {
        ast.literal_eval(call.args[0])
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Mutant"
    }
    assert set(re.findall(r'mutant "([^"]+)"', section("Hazards"))) == mutants


def test_every_file_that_the_page_names_exists():
    named = set(re.findall(r"`((?:asyncq|tests)/[\w/.]+)`", PAGE))
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_example_of_a_report_can_be_decoded():
    (report,) = [wire.decode_report(example) for example in examples("report")]
    assert (report.number, report.state) == (3, "PROGRESS")
    assert wire.entry_order(report.entry) == (1795385154261, 0)


@pytest.mark.parametrize("kind", ["message", "expires", "policy"])
def test_examples_of_messages_are_encoded_as_this_version_does(kind):
    for message in examples(kind):
        assert wire.encode_job(wire.decode_job("job", "default", message)) == message


def test_examples_of_records_and_outcomes_can_be_decoded():
    [ended], [revoked], [outcome] = examples("ended"), examples("revoked"), examples("outcome")
    assert records.Record.parse(ended).ended() == wire.decode_ended("S", outcome)
    assert wire.encode_ended(records.Record.parse(ended).ended()) == outcome
    assert records.Record.parse(revoked).ended().state == "REVOKED"
    for kind, letter in (("live", wire.LIVE), ("later", wire.SCHEDULED), ("retry", wire.RETRYING)):
        [record] = examples(kind)
        assert re.fullmatch(rf"{letter}--- \S+ default \S+ \S+", record.decode())


def test_the_page_describes_the_letters_of_a_record_as_the_code_does():
    record = section("Record")
    row = r"^\|(?: \w+)? \| `(\w)` \| (.+?) \|$|^\| `(\w)` \| (.+?) \| .+ \|$"
    rows = re.findall(row, record, re.MULTILINE)
    shown = [(one or other, text or another) for one, text, other, another in rows]
    tables = (records.STATES, records.SIGNALS, records.WISHES, records.LINKS)
    assert shown == [pair for table in tables for pair in table.items() if pair[1]]
    assert records.STATES.keys() == wire.STATE_OF.keys() | {wire.TOMBSTONE}


def test_examples_of_notifications_can_be_decoded():
    received = [job for data in examples("notification") for job in wire.split_notification(data)]
    assert [(id_, letter) for id_, letter, _ in received] == [("job-1", "S"), ("job-3", "C")]
    for _, letter, outcome in received:
        assert outcome is not None
        assert wire.decode_ended(letter, outcome).name


def test_figures_of_the_page_are_those_of_the_code():
    assert f"Above {wire.PUSH_LIMIT // 1024} KiB" in section("Notification")
    assert f"{consumer.BLOCK_MS / 1000:g} s" in section("Lease")
    assert f"at most {consumer.PROMOTE_AT_ONCE} a call" in section("promote")
