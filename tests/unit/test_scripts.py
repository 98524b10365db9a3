"""The loader of the Lua scripts: a script's header is its contract."""

from __future__ import annotations

import hashlib
import re
from importlib import resources

import pytest

from asyncq.broker.schema.script_constants import CONSTANTS
from asyncq.broker.transport import cluster_scripts, scripts
from asyncq.broker.transport.script_text import expand, readers_in
from asyncq.broker.transport.scripts import parse

SHARED = {"record": "local function parse() end"}


def test_names_in_the_header_become_local_variables():
    script = parse("x", "-- KEYS: stream beats\n-- ARGV: group (entry id)*\n-- RETURNS: 1\nreturn 1", SHARED)
    assert script.source.splitlines()[:5] == [
        "#!lua",
        "local stream = KEYS[1]",
        "local beats = KEYS[2]",
        "local group = ARGV[1]",
        "local first, stride = 2, 2",
    ]
    assert (script.keys, script.arguments, script.repeated) == (
        ("stream", "beats"),
        ("group",),
        ("entry", "id"),
    )
    assert script.sha == hashlib.sha1(script.source.encode()).hexdigest()


def test_flags_go_into_the_first_line_and_shared_code_before_the_script():
    header = "-- RETURNS: 1\n-- FLAGS: allow-oom\n-- USES: record\n"
    shared = (
        "-- Why.\nlocal MOST = 1\n\nlocal function one()\n  return MOST\nend\nlocal function other()\nend\n"
    )
    script = parse("x", header + "return one()", {"record": shared})
    front = "#!lua flags=allow-oom\n-- Why.\nlocal MOST = 1\nlocal function one()\n  return MOST\nend\n"
    assert script.source == front + header + "return one()"


def test_functions_that_only_a_rare_function_needs_are_defined_inside_it():
    header = "-- RETURNS: 1\n-- USES: record\n-- RARELY: rare\n"
    often, deep = "local function often()\nend", "local function deep()\nend"
    rare = "local function rare(x)\n  return deep() + often() + x\nend"
    script = parse(
        "x", header + "return often() or rare(1)", {"record": f"{often}\n{deep}\n-- Why.\n{rare}\n"}
    )
    inside = f"-- Why.\nlocal function rare(x)\n{deep}\n  return deep() + often() + x\nend"
    assert script.source == f"#!lua\n{often}\n{inside}\n{header}return often() or rare(1)"


def test_a_variable_that_a_rare_function_changes_stays_outside_of_it():
    header = "-- RETURNS: 1\n-- USES: record\n-- RARELY: rare\n"
    most, count = "local MOST = 9", "local count = 0"
    body = "  count = count + 1\n  return count < MOST\nend"
    shared = {"record": f"{most}\n{count}\nlocal function rare()\n{body}\n"}
    script = parse("x", header + "return rare() and rare()", shared)
    inside = f"local function rare()\n{most}\n{body}"
    assert script.source == f"#!lua\n{count}\n{inside}\n{header}return rare() and rare()"


def test_a_name_in_a_comment_or_in_a_string_is_not_a_call():
    shared = {"record": "local function one()\nend\nlocal function two()\nend\n"}
    script = parse("x", "-- RETURNS: 1\n-- USES: record\nreturn 'one -- \\' one' .. two() -- one", shared)
    assert "function one" not in script.source
    assert "function two" in script.source


READERS = readers_in(["local function state_of(record) return string.sub(record, 1, 1) end\nlocal x = 1"])


def test_a_comparison_that_is_written_out_stays_one_behind_not():
    readers = readers_in(["local function is_signalled(record) return string.sub(record, 2, 2) ~= '-' end"])
    assert expand("if not is_signalled(flags) then", readers) == (
        "if not (string.sub(flags, 2, 2) ~= '-') then"
    )


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("STATE.LIVE .. FLAGS.NONE .. ' ' .. entry", "'L--- ' .. entry"),
        ("'^[' .. STATE.LIVE .. STATE.WAITING .. ']'", "'^[LW]'"),
        (r"KEY.RECORDS .. id .. ' ' .. '\''", r"'r:' .. id .. ' \''"),
        ("state_of(found[k]) == STATE.LIVE", "string.sub(found[k], 1, 1) == 'L'"),
        ("local function state_of(record) return string.sub(record, 1, 1) end", ""),
        (
            "'STATE.LIVE' -- STATE.LIVE 'a' .. 'b' state_of(x)",
            "'STATE.LIVE' -- STATE.LIVE 'a' .. 'b' state_of(x)",
        ),
        ("MY_STATE.LIVE and a.STATE", "MY_STATE.LIVE and a.STATE"),
    ],
)
def test_names_of_constants_and_readers_are_expanded_in_the_code(text, expanded):
    assert expand(text, READERS) == expanded


@pytest.mark.parametrize("text", ["STATE.LIFE", "state_of(redis.call('GET', x))", "state_of()"])
def test_a_name_that_cannot_be_expanded_is_refused(text):
    with pytest.raises(ValueError):
        expand(text, READERS)


def test_every_tag_of_an_answer_is_in_the_header_of_the_script_that_returns_it():
    given = set()
    for text in _texts().values():
        returns = re.search(r"^-- RETURNS: (.*)$", text, re.MULTILINE)
        if returns is None:  # a shared file: who calls its function returns the tag
            assert set(re.findall(r"\bANSWER\.(\w+)", text)) <= {"ENDS"}
            continue
        tags = re.findall(r"\bANSWER\.(\w+)", text) + ["ENDS"] * ("with_ends(" in text)
        for name in tags:
            given.add(name)
            assert f"{{{CONSTANTS['ANSWER'][name]}" in returns[1], name
    assert given == set(CONSTANTS["ANSWER"])


def test_scripts_use_constants_for_letters_and_key_names():
    for name, text in _texts().items():
        code = re.sub(r"--.*", "", re.sub(r"'-+'", "", text))
        assert not re.search(r"\bkey_prefix \.\. '", code), name
        assert not re.search(r"\b(?:state|letter) [=~]= '|(?:state|signal|wish)_of\([^)]*\) [=~]= '", code), (
            name
        )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("return 1", ValueError),
        ("-- ARGV: a (b)* c\n-- RETURNS: 1", ValueError),
        ("-- RETURNS: 1\n-- USES: nothing", KeyError),
        ("-- RETURNS: 1\n-- USES: record\n-- RARELY: nothing", ValueError),
    ],
)
def test_a_broken_header_is_refused(text, error):
    with pytest.raises(error):
        parse("x", text, SHARED)


def _texts() -> dict[str, str]:
    folder = resources.files("asyncq.broker").joinpath("lua")
    return {file.name: file.read_text() for file in folder.iterdir() if file.name.endswith(".lua")}


def test_every_file_is_loaded_once_under_its_name():
    assert set(scripts.load()) == {name[:-4] for name in _texts() if not name.startswith("_")}
    assert scripts.load() is scripts.load()
    assert len({script.sha for script in scripts.load().values()}) == len(scripts.load())


@pytest.mark.parametrize("name", sorted(scripts.load()))
def test_every_script_has_a_description_and_uses_all_its_arguments(name):
    script = scripts.load()[name]
    body = _texts()[f"{name}.lua"]
    assert body.startswith("-- "), "the first line says what it does"
    naming = re.compile(r"\s*--|local \w+ = (?:KEYS|ARGV)\[")
    # With the shared functions that it calls: some scripts only call them.
    code = "\n".join(line for line in script.source.splitlines() if not naming.match(line))
    for argument in (*script.keys, *script.arguments):
        assert re.search(rf"\b{argument}\b", code), f"{name}.lua does not use {argument}"


@pytest.mark.parametrize("name", sorted(scripts.load()))
def test_fills_outbox_is_true_exactly_for_scripts_that_write_into_the_outbox(name):
    writes = re.search(r"redis\.call\('XADD', key_prefix \.\. 'out'", scripts.load()[name].source)
    assert scripts.load()[name].fills_outbox == bool(writes)


READING = {
    "ZCARD",
    "EXISTS",
    "HGET",
    "HGETALL",
    "HMGET",
    "MGET",
    "SMEMBERS",
    "TIME",
    "XINFO",
    "XLEN",
    "XPENDING",
    "XRANGE",
}


@pytest.mark.parametrize("name", sorted(scripts.load()))
def test_a_script_has_the_flag_no_writes_exactly_if_it_only_reads(name):
    commands = set(re.findall(r"redis\.p?call\('([A-Z]+)'", _texts()[f"{name}.lua"]))
    writers = (
        r"\b(?:store_outcome|notify|delay_job|add_dead_letter|end_job|accept_jobs|accept_job_at|deliver_end"
        r"|store_offset|store_status|status_of)\("
    )
    shared = set(re.findall(writers, _texts()[f"{name}.lua"]))
    flags = scripts.load()[name].source.splitlines()[0]
    assert ("no-writes" in flags) == (commands <= READING and not shared)


def test_the_scripts_of_a_cluster_differ_by_the_guards_and_by_how_they_publish():
    plain, on_cluster = scripts.load(), scripts.load_for_cluster()
    assert plain.keys() == on_cluster.keys()
    for name, script in on_cluster.items():
        source = script.source.replace(cluster_scripts.FUNCTIONS + "\n", "", 1)
        assert "redis.call('PUBLISH'" not in source, name
        assert source.replace("publish_in_shard(", "redis.call('PUBLISH', ") == plain[name].source, name
        assert script.sha != plain[name].sha, "a server may have both"
