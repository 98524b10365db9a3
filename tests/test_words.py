"""Words that the project has given up stay away: a reader meets the words of the field, see docs/glossary.md.

Two lists: words that no text may hold, and words that are good English, but no name in the code.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GLOSSARY = ROOT / "docs" / "glossary.md"

TEXTS = "courier errand incarnation lane nonce parcel turnstile"
"""Words that neither a text nor a name may hold."""

NAMES = (
    "begun bring bury carrier census ghost hear heard heir hoisted lighten outlet parking settle settled "
    "shape starred synced told untold vacate"
)
"""Words that no name in Python may have as one of its parts, though a sentence may use them."""

EXCEPTIONS: dict[str, set[str]] = {
    # Bytes that an earlier version wrote.
    "tests/unit/test_golden.py": {"nonce"},
    "tests/unit/test_wire.py": {"nonce"},
}
"""File: the words that it may use all the same."""

FOLDERS = ("asyncq", "tests", "docs", "benchmarks", "examples")
ENDINGS = {".py", ".md", ".lua"}


def _files() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in ENDINGS]
    return [*found, ROOT / "README.md", ROOT / "pyproject.toml"]


def _parts(name: str) -> set[str]:
    """The words of a name: `_come_back` and `ComeBack` have come and back."""
    return {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)}


def _names(source: str) -> set[str]:
    """Every name that a program of Python gives to something, or has of others."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        for attribute in ("id", "attr", "arg", "name", "asname"):
            name = getattr(node, attribute, None)
            if isinstance(name, str):
                found.add(name)
    return found


def _pattern(words: list[str]) -> re.Pattern[str]:
    """Any of the words and its plural: in a sentence, in snake_case and in CamelCase."""
    alone = "|".join(form for word in words for form in (word, word.capitalize(), word.upper()))
    in_camel_case = "|".join(word.capitalize() for word in words)
    return re.compile(rf"(?<![A-Za-z])(?:{alone})[sS]?(?![a-z])|(?<=[a-z])(?:{in_camel_case})s?(?![a-z])")


def words_in_text(text: str, words: list[str]) -> set[str]:
    """Which of the words stand anywhere in a text."""
    found = {each.group().lower() for each in _pattern(words).finditer(text)} if words else set()
    return {word for word in words if {word, word + "s"} & found}


def words_in_names(source: str, words: list[str]) -> set[str]:
    """Which of the words are a part of a name in a program of Python."""
    if not (words and _pattern(words).search(source)):
        return set()
    parts = {part for name in _names(source) for part in _parts(name)}
    return {word for word in words if {word, word + "s"} & parts}


def test_no_text_and_no_name_uses_a_word_that_was_given_up():
    wrong = []
    for path in _files():
        if path == Path(__file__):
            continue
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8")
        found = words_in_text(text, TEXTS.split())
        if path.suffix == ".py":
            found |= words_in_names(text, NAMES.split())
        wrong += [f"{name}: {word}" for word in sorted(found - EXCEPTIONS.get(name, set()))]
    assert not wrong, "the glossary has another word for:\n" + "\n".join(wrong)


def test_every_exception_is_used():
    for name, words in EXCEPTIONS.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        found = words_in_text(text, TEXTS.split()) | words_in_names(text, NAMES.split())
        assert words <= found, f"{name} may lose its exception"


def test_the_glossary_has_each_term_once_with_its_module_and_its_key():
    rows = re.findall(
        r"^\| (?!Term|---)(.+?) \|.*\| (.*?) \| ?(.*?) ?\|$",
        GLOSSARY.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    terms = [term for term, _, _ in rows]
    assert len(terms) > 50
    assert sorted(set(terms)) == sorted(terms)
    protocol = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    for term, code, keys in rows:
        modules = re.findall(r"`(asyncq[./][\w./]+)`", code)
        assert modules, f"{term}: no module"
        for module in modules:
            path = ROOT / module.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").is_file(), f"{term}: there is no {module}"
        for key in re.findall(r"`(T:\w+)", keys):
            assert f"`{key}" in protocol, f"{term}: the protocol has no key {key}"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = 1  # each ghost", {"ghost"}),
        ("GHOSTS = 1", {"ghost"}),
        ("def _find_ghost(): ...", {"ghost"}),
        ("class GhostFinder: ...", {"ghost"}),
        ("ghostly = 1", set()),
        ("x = 1  # he told us", set()),
        ("told = 1", {"told"}),
        ("class T:\n    def is_told(self): ...", {"told"}),
        ("f(told=1)", {"told"}),
    ],
)
def test_given_up_words_are_found_in_texts_and_names(source, found):
    assert words_in_text(source, ["ghost"]) | words_in_names(source, ["told"]) == found
