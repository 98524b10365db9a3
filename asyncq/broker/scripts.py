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


def _used(text: str, shared: str, rarely: set[str]) -> list[str]:
    """The definitions in `shared` that a script needs, in their order. Each is one line, or ends with the
    first `end` that is not indented.
    """
    definitions = re.findall(
        r"^(?:--.*\n)*local (?:function .*\n(?:.*\n)*?end|\w+ = .*)$", shared, re.MULTILINE
    )
    named = [(_name_of(definition), definition) for definition in definitions]
    often = _needed(text, named, rarely)
    return [_filled(definition, named, often) if name in rarely else definition for name, definition in often]


_Named = list[tuple[str, str]]


def _needed(text: str, named: _Named, but_of: set[str] | frozenset[str] = frozenset()) -> _Named:
    """Those that a text calls, itself or through others, but not what only those in `but_of` need."""
    found: _Named = []
    for name, definition in reversed(named):
        if re.search(rf"\b{name}\b", text):
            found.insert(0, (name, definition))
            if name not in but_of:
                text += definition
    return found


def _filled(definition: str, named: _Named, outside: _Named) -> str:
    """A function with what it needs, and what stands nowhere outside, inside."""
    before = named[: named.index((_name_of(definition), definition))]
    inside = [text for name, text in _needed(definition, before) if (name, text) not in outside]
    lines = definition.split("\n")
    head = next(place for place, line in enumerate(lines, 1) if line.startswith("local function"))
    return "\n".join([*lines[:head], *inside, *lines[head:]])


def _name_of(definition: str) -> str:
    found = re.search(r"^local (?:function )?(\w+)", definition, re.MULTILINE)
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
    uses = "\n".join(shared[use] for use in used)
    functions = _used(text, uses, set(header.get("RARELY", "").split()))
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
