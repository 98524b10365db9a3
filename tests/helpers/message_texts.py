"""The texts that the package prints: its string literals, with a place for each value in them."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import asyncq

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLACE = re.compile(r"%(?:[-+ #0]*\d*(?:\.\d+)?[sdrgfi])")
_FEWEST_LETTERS = 7
"""A text with fewer letters of its own would match anything."""


@functools.cache
def message_patterns() -> list[re.Pattern[str]]:
    """Returns a pattern for each line of each text in the source of the package."""
    folder = Path(asyncq.__file__).parent
    texts = {text for path in folder.rglob("*.py") for text in _texts(ast.parse(path.read_text("utf-8")))}
    lines = {line for text in texts for line in text.split("\n")}
    return [
        re.compile(".*".join(map(re.escape, line.split("\0"))), re.DOTALL)
        for line in sorted(lines)
        if sum(letter.isalpha() for letter in line) >= _FEWEST_LETTERS
    ]


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(_part(part) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield _PLACE.sub("\0", node.value)


def _part(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else "\0"


def is_printed(text: str) -> bool:
    """Whether the package has a text of which this one is an example, or two that it joins by a semicolon."""
    if any(pattern.fullmatch(text) for pattern in message_patterns()):
        return True
    first, joint, second = text.partition("; ")
    return bool(joint) and is_printed(first) and is_printed(second)
