"""Replaces the names in the text of a script by what they stand for. It costs the server nothing: a constant
becomes a string, and a function of one line is written out where it is called.

    STATE.LIVE .. FLAGS.NONE .. ' ' .. entry        'L--- ' .. entry
    state_of(flags) == STATE.LIVE                   string.sub(flags, 1, 1) == 'L'
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from asyncq.broker.schema.script_constants import CONSTANTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_STRING = r"'(?:[^'\\\n]|\\.)*'"
_NO_CODE = re.compile(rf"(--.*|{_STRING})")
_STRINGS = re.compile(rf"--.*|{_STRING}(?: \.\. {_STRING})*")
_CONSTANT = re.compile(rf"\b({'|'.join(CONSTANTS)})\.(\w+)")
_COMPARES = re.compile(r" [~=<>]=? | and | or ")
_READER = re.compile(r"^local function (\w+)\((\w+)\) return (.*) end$", re.MULTILINE)


class Readers(NamedTuple):
    """The functions of one line.

    Attributes:
        bodies: by name, with the name of the argument.
        call: finds a call of one.
        name: finds what may be a name that is to be replaced.
    """

    bodies: Mapping[str, tuple[str, str]]
    call: re.Pattern[str]
    name: re.Pattern[str]


def readers_in(texts: Iterable[str]) -> Readers:
    """Finds the functions of one line and one argument in some files."""
    found = [parts for text in texts for parts in _READER.findall(text)]
    # A comparison is put into parentheses: `not` binds closer than it.
    bodies = {
        name: (argument, f"({body})" if _COMPARES.search(body) else body) for name, argument, body in found
    }
    names = "|".join(bodies) or "(?!)"
    # An argument without parentheses, such as `flags` and `found[k]`.
    call = re.compile(rf"\b({names})\(([\w.\[\]]*)\)?")
    # Without `\b` at its front, `re` skips to the letters with which a name may begin.
    return Readers(bodies, call, re.compile(rf"(?:{names}|{'|'.join(CONSTANTS)})[.(]"))


def expand(text: str, readers: Readers) -> str:
    """Replaces the names in a file.

    Args:
        text: of the file.
        readers: functions to write out. Where they are defined, nothing is left of them.

    Raises:
        ValueError: there is no constant of that name, or the argument of a call cannot be written out.
    """
    # Few lines have such a name, and each process does this when it starts.
    parts, end = [], 0
    for found in readers.name.finditer(text):
        if found.start() >= end:
            start = text.rfind("\n", 0, found.start()) + 1
            parts.append(text[end:start])
            end = text.find("\n", found.start())
            end = len(text) if end < 0 else end
            parts.append(_expanded(text[start:end], readers))
    return "".join([*parts, text[end:]])


def _expanded(line: str, readers: Readers) -> str:
    if _READER.match(line):
        return ""
    line = _in_code(line, lambda code: readers.call.sub(lambda call: _written_out(call, readers), code))
    line = _in_code(line, lambda code: _CONSTANT.sub(_string, code))
    return _STRINGS.sub(_joined, line)


def _in_code(line: str, replace: Callable[[str], str]) -> str:
    """Replaces in the code alone, and neither in a comment nor in strings."""
    parts = _NO_CODE.split(line)
    parts[::2] = map(replace, parts[::2])
    return "".join(parts)


def _written_out(call: re.Match[str], readers: Readers) -> str:
    argument, body = readers.bodies[call[1]]
    if not call[2] or not call[0].endswith(")"):
        raise ValueError(f"the argument of {call[0]!r} is no name")
    return re.sub(rf"\b{argument}\b", lambda _: call[2], body)


def _string(constant: re.Match[str]) -> str:
    value = CONSTANTS[constant[1]].get(constant[2])
    if value is None:
        raise ValueError(f"there is no constant {constant[0]}")
    return f"'{value}'"


def _joined(strings: re.Match[str]) -> str:
    """Makes one string of strings that are joined with each other."""
    return strings[0] if strings[0].startswith("--") else strings[0].replace("' .. '", "")
