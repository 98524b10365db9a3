"""The picture in docs/architecture.md names every package and module that there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PICTURE = PAGE[PAGE.index("```text\nasyncq/") : PAGE.index("```", PAGE.index("```text\nasyncq/") + 3)]
WORDS = set(re.findall(r"[a-z_]+", PICTURE))


def test_the_page_names_every_package_and_every_module():
    package = ROOT / "asyncq"
    # The page shows each of these packages as a whole, without its modules.
    whole = {"embedded", "failures", "serializers", "system", "lua", "bench"}
    missing = []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package).parts
        if whole & set(inside[:-1]) or path.stem in {"__init__", "__main__"}:
            continue
        missing += [part for part in (*inside[:-1], path.stem) if part not in WORDS]
    assert missing == []


def test_the_folders_and_files_that_the_page_names_exist():
    named = re.findall(r"([a-z_]+(?:/|\.py))", PICTURE)
    existing = {path.name for path in (ROOT / "asyncq").rglob("*")} | {"asyncq"}
    assert len(named) > 25
    assert [name for name in named if name.rstrip("/") not in existing] == []
