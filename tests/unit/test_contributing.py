"""CONTRIBUTING.md names only files, commands and links that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_file_and_folder_that_the_page_names_exists():
    named = set(re.findall(r"`((?:asyncq|tests|docs|benchmarks|examples|\.ci)/[\w./-]*)`", PAGE))
    linked = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", PAGE)}
    assert len(named) > 20
    assert [path for path in sorted(named | linked) if not (ROOT / path).exists()] == []


def test_every_target_of_make_that_the_page_names_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`?make (\w+)", PAGE)) <= targets
