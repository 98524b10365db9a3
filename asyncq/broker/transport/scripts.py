"""Loads the Lua scripts. Each is a `.lua` file whose header is its contract and names its KEYS and ARGV.

    -- What it does, and why it is safe to send twice.
    -- KEYS: stream beats (more)*
    -- ARGV: group consumer (entry id)*
    -- RETURNS: ...
    -- FLAGS: allow-oom
    -- USES: record
    -- RARELY: tell

The loader makes a Lua local of each name. A group `(entry id)*` at the end repeats: the script finds it from
index `first` on, in steps of `stride`. `USES` puts functions of the shared file `_<name>.lua` in front, but
only those that the script calls, because Lua makes each function anew at every call of the script. Functions
that only those under `RARELY` need are put inside these, and made when these are called. A variable that a
function assigns to stays outside: it keeps its value from one call to the next. Names such as `STATE.LIVE`
are replaced before all that, see `script_text`.

A test server gets other scripts, which read the time of a virtual clock, see `virtual_time`. So does a
Cluster, see `cluster_scripts`.

Every script begins with a shebang. Because of it, the server refuses a script that may not write (READONLY,
MISCONF, out of memory without `allow-oom`) as a whole and before its first write. Pure functions, on any
thread; the files are read once in a process.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from importlib import resources

from asyncq.broker.transport import cluster_scripts, virtual_time
from asyncq.broker.transport.script_text import expand, readers_in

_FIELD = re.compile(r"^-- (KEYS|ARGV|RETURNS|FLAGS|USES|RARELY): (.*)$")
_GROUP = re.compile(r"^(?P<fixed>[^(]*?)\s*(?:\((?P<repeated>[^)]*)\)\*)?$")
_WORD = re.compile(r"--.*|'(?:[^'\\]|\\.)*'|(\w+)")
_ASSIGNMENT = re.compile(r"^ +(\w+) = ", re.MULTILINE)
_DEFINITION = re.compile(r"^(?:--.*\n)*local (?:function .*\n(?:.*\n)*?end|\w+ = .*)$", re.MULTILINE)
_NAME = re.compile(r"^local (?:function )?(\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A script as the server gets it.

    Attributes:
        name: of its file, without `.lua`.
        source: what the server runs.
        sha: of the source, for EVALSHA.
        keys, arguments, repeated: the names in its header: of KEYS, of ARGV, and of the group that repeats.
        fills_outbox: whether it may write to the outbox of its shard. Only functions in `_workflow.lua` do.
    """

    name: str
    source: str
    sha: str
    keys: tuple[str, ...]
    arguments: tuple[str, ...]
    repeated: tuple[str, ...]
    fills_outbox: bool


def _locals(array: str, text: str) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
    """Returns the Lua locals for one line of a header, its fixed names, and the names of its group."""
    match = _GROUP.match(text)
    if match is None:
        raise ValueError(f"{array}: {text!r} is not a list of names with an optional group at its end")
    fixed, repeated = tuple(match["fixed"].split()), tuple((match["repeated"] or "").split())
    lines = [f"local {name} = {array}[{index}]" for index, name in enumerate(fixed, 1)]
    if repeated and array == "ARGV":
        lines.append(f"local first, stride = {len(fixed) + 1}, {len(repeated)}")
    return lines, fixed, repeated


@dataclass(frozen=True, slots=True, eq=False)
class _Definition:
    """A local of a shared file, with the comment in front of it. It equals itself alone."""

    name: str
    text: str
    words: frozenset[str]
    """All words in its code, for looking up names. Searching the text for each name would cost every process
    0.2 s at its start.
    """
    assigned: frozenset[str]
    """The names that it assigns to, its own locals among them."""


def _words(text: str) -> frozenset[str]:
    """Returns the words in the code. A comment or a string may name a function without calling it."""
    return frozenset(_WORD.findall(text))


@functools.cache
def _definitions(shared: str) -> tuple[_Definition, ...]:
    """Returns the definitions of a shared file in their order. Each is one line, or ends with the first `end`
    that is not indented.
    """
    return tuple(
        _Definition(_name_of(text), text, _words(text), frozenset(_ASSIGNMENT.findall(text)))
        for text in _DEFINITION.findall(shared)
    )


def _used(text: str, shared: list[_Definition], rarely: set[str]) -> list[str]:
    """Returns the texts of the definitions that a script needs, in their order."""
    words = _words(text)
    often, every = _needed(words, shared, rarely), _needed(words, shared)
    assigned = frozenset[str]().union(*(each.assigned for each in every))
    outside = [each for each in every if each in often or each.name in assigned]
    return [_filled(each, shared, outside) if each.name in rarely else each.text for each in outside]


def _needed(
    words: frozenset[str], shared: list[_Definition], but_of: set[str] | frozenset[str] = frozenset()
) -> list[_Definition]:
    """Returns the definitions that a text with these words calls, itself or through others. Leaves out those
    that only definitions in `but_of` need.
    """
    found = []
    # Backwards: a definition can only call those before it.
    for each in reversed(shared):
        if each.name in words:
            found.append(each)
            if each.name not in but_of:
                words |= each.words
    return found[::-1]


def _filled(definition: _Definition, shared: list[_Definition], outside: list[_Definition]) -> str:
    """Returns the text of a function, with all definitions inside that it needs and that are not outside."""
    before = shared[: shared.index(definition)]
    inside = [each.text for each in _needed(definition.words, before) if each not in outside]
    lines = definition.text.split("\n")
    head = next(number for number, line in enumerate(lines, 1) if line.startswith("local function"))
    return "\n".join([*lines[:head], *inside, *lines[head:]])


def _name_of(definition: str) -> str:
    found = _NAME.search(definition)
    assert found is not None
    return found[1]


def parse(name: str, text: str, shared: dict[str, str], first: str = "") -> Script:
    """Makes a script of the text of its file.

    Args:
        name: of the script.
        text: of its file.
        shared: the texts of the shared files, by the name after `_`.
        first: what comes before all else, as text.

    Raises:
        ValueError: the header is broken.
        KeyError: it uses a shared file that does not exist.
    """
    header: dict[str, str] = {}
    for line in text.splitlines():
        if found := _FIELD.match(line):
            header[found[1]] = found[2]
    if "RETURNS" not in header:
        raise ValueError(f"{name}.lua: the header does not say what it RETURNS")
    key_lines, keys, _ = _locals("KEYS", header.get("KEYS", ""))
    arg_lines, arguments, repeated = _locals("ARGV", header.get("ARGV", ""))
    shebang = f"#!lua flags={header['FLAGS']}" if "FLAGS" in header else "#!lua"
    used = header.get("USES", "").split()
    definitions = [each for use in used for each in _definitions(shared[use])]
    rarely = set(header.get("RARELY", "").split())
    if unknown := rarely - {each.name for each in definitions}:
        raise ValueError(
            f"{name}.lua: RARELY names {', '.join(sorted(unknown))}, which no file that it uses has"
        )
    functions = _used(text, definitions, rarely)
    parts = [shebang, *filter(None, [first]), *key_lines, *arg_lines, *functions, text]
    source = "\n".join(parts)
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, source, sha, keys, arguments, repeated, fills_outbox="workflow" in used)


@functools.cache
def texts() -> dict[str, str]:
    """Returns the text of every file by name, with its constants and readers replaced. Reads the files once
    in a process.
    """
    found = {
        file.name.removesuffix(".lua"): file.read_text(encoding="utf-8")
        for file in resources.files("asyncq.broker").joinpath("lua").iterdir()
        if file.name.endswith(".lua")
    }
    readers = readers_in(text for name, text in found.items() if name.startswith("_"))
    return {name: expand(text, readers) for name, text in found.items()}


@functools.cache
def load() -> dict[str, Script]:
    """Returns all scripts by name."""
    return _parsed(texts())


@functools.cache
def load_for_tests() -> dict[str, Script]:
    """Returns all scripts by name, as a test server gets them: they read the time of its virtual clock."""
    return _parsed(virtual_time.replaced(texts()), virtual_time.FUNCTIONS)


@functools.cache
def load_for_cluster() -> dict[str, Script]:
    """Returns all scripts by name, as a Cluster gets them: see `cluster_scripts`."""
    return _parsed(cluster_scripts.replaced(texts()), cluster_scripts.FUNCTIONS)


def _parsed(found: dict[str, str], first: str = "") -> dict[str, Script]:
    shared = {name[1:]: text for name, text in found.items() if name.startswith("_")}
    own = {name: text for name, text in found.items() if not name.startswith("_")}
    return {name: parse(name, text, shared, first) for name, text in own.items()}
