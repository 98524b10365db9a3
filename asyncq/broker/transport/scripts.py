"""The scripts: one `.lua` file each, whose header is its contract and gives names to its KEYS and ARGV.

    -- What it does, and why it is safe to send twice.
    -- KEYS: stream beats (more)*
    -- ARGV: group consumer (entry id)*
    -- RETURNS: ...
    -- FLAGS: allow-oom
    -- USES: record
    -- RARELY: tell

Each name becomes a local. A group `(entry id)*` at the end repeats: the script finds it from index `first` in
steps of `stride`. `USES` puts the shared functions of `_<name>.lua` in front, those that the script calls:
Lua makes each of them anew at every call. What only functions under `RARELY` need is made when these are
called. Every script begins with a shebang: the server then refuses it whole, before the first write, when it
may not write at all (READONLY, MISCONF, out of memory without `allow-oom`).
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from importlib import resources

_FIELD = re.compile(r"^-- (KEYS|ARGV|RETURNS|FLAGS|USES|RARELY): (.*)$")
_GROUP = re.compile(r"^(?P<fixed>[^(]*?)\s*(?:\((?P<repeated>[^)]*)\)\*)?$")
_WORD = re.compile(r"\w+")
_DEFINITION = re.compile(r"^(?:--.*\n)*local (?:function .*\n(?:.*\n)*?end|\w+ = .*)$", re.MULTILINE)
_NAME = re.compile(r"^local (?:function )?(\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A script as the server gets it.

    Attributes:
        keys, arguments, repeated: the names in its header, for whoever calls it.
        fills_outbox: whether it may leave something for other shards in the outbox of its own: only the
            functions in `_workflow.lua` do.
    """

    name: str
    source: str
    sha: str
    keys: tuple[str, ...]
    arguments: tuple[str, ...]
    repeated: tuple[str, ...]
    fills_outbox: bool


def _locals(array: str, text: str) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
    match = _GROUP.match(text)
    if match is None:
        raise ValueError(f"{array}: {text!r} is not a list of names with an optional group at its end")
    fixed, repeated = tuple(match["fixed"].split()), tuple((match["repeated"] or "").split())
    lines = [f"local {name} = {array}[{index}]" for index, name in enumerate(fixed, 1)]
    if repeated and array == "ARGV":
        lines.append(f"local first, stride = {len(fixed) + 1}, {len(repeated)}")
    return lines, fixed, repeated


@dataclass(frozen=True, slots=True)
class _Definition:
    """A local of a shared file, with the comment in front of it."""

    name: str
    text: str
    words: frozenset[str]
    """All words in it. Names are looked up here: to search the text for each of them would take every process
    0.2 s at its start.
    """


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text))


@functools.cache
def _definitions(shared: str) -> tuple[_Definition, ...]:
    """Those of a shared file in their order. Each is one line, or ends with the first `end` that is not
    indented.
    """
    return tuple(_Definition(_name_of(text), text, _words(text)) for text in _DEFINITION.findall(shared))


def _used(text: str, shared: list[_Definition], rarely: set[str]) -> list[str]:
    """The definitions that a script needs, in their order."""
    often = _needed(_words(text), shared, rarely)
    return [_filled(each, shared, often) if each.name in rarely else each.text for each in often]


def _needed(
    words: frozenset[str], shared: list[_Definition], but_of: set[str] | frozenset[str] = frozenset()
) -> list[_Definition]:
    """Those that a text of these words calls, itself or through others, but not what only those in `but_of`
    need.
    """
    found = []
    for each in reversed(shared):
        if each.name in words:
            found.append(each)
            if each.name not in but_of:
                words |= each.words
    return found[::-1]


def _filled(definition: _Definition, shared: list[_Definition], outside: list[_Definition]) -> str:
    """A function with what it needs, and what stands nowhere outside, inside."""
    before = shared[: shared.index(definition)]
    inside = [each.text for each in _needed(definition.words, before) if each not in outside]
    lines = definition.text.split("\n")
    head = next(place for place, line in enumerate(lines, 1) if line.startswith("local function"))
    return "\n".join([*lines[:head], *inside, *lines[head:]])


def _name_of(definition: str) -> str:
    found = _NAME.search(definition)
    assert found is not None
    return found[1]


def parse(name: str, text: str, shared: dict[str, str]) -> Script:
    """The script in a file's text.

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
    functions = _used(text, definitions, set(header.get("RARELY", "").split()))
    parts = [shebang, *key_lines, *arg_lines, *functions, text]
    source = "\n".join(parts)
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, source, sha, keys, arguments, repeated, fills_outbox="workflow" in used)


@functools.cache
def load() -> dict[str, Script]:
    """Every script by name, read once."""
    texts = {
        file.name.removesuffix(".lua"): file.read_text(encoding="utf-8")
        for file in resources.files("asyncq.broker").joinpath("lua").iterdir()
        if file.name.endswith(".lua")
    }
    shared = {name[1:]: text for name, text in texts.items() if name.startswith("_")}
    return {name: parse(name, text, shared) for name, text in texts.items() if not name.startswith("_")}
