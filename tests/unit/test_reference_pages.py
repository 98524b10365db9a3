"""The reference pages agree with the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"

_spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
assert _spec is not None
assert _spec.loader is not None
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return generate.pages()


WRITTEN = sorted(page.name for page in (DOCS / "reference").iterdir())


@pytest.mark.parametrize("file", WRITTEN)
def test_a_reference_page_is_what_the_code_generates_now(file, pages):
    written = (DOCS / "reference" / file).read_text(encoding="utf-8")
    assert written == pages[file], "run: python docs/generate.py"


def test_the_page_of_exceptions_is_what_the_test_table_generates():
    written = (DOCS / "exceptions.md").read_text(encoding="utf-8")
    assert written == generate.exceptions(), "run: python docs/generate.py"


def test_the_page_of_values_has_the_kinds_of_the_tests():
    written = (DOCS / "values.md").read_text(encoding="utf-8")
    assert written == generate.page_of_values(), "run: python docs/generate.py"


def test_every_reference_page_is_generated(pages):
    assert set(WRITTEN) == set(pages), "run: python docs/generate.py"
    assert {"settings.md", "options.md", "cli.md", "errors.md", "api.md"} <= set(pages)


def test_the_page_is_the_same_on_a_terminal_of_any_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert generate.command_line() == (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
