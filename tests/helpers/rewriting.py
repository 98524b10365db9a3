"""In a fresh clone, each process of pytest-xdist rewrites the assertions of a share of the test files.

Without this, each process would rewrite all files: all collect the same files in the same order at the same
time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# pytest has no public name for these; they are the same from 8.3 to 9.2.
from _pytest.assertion import rewrite

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def rewrite_share(config: pytest.Config) -> None:
    """Rewrites this process's share of the files that were never rewritten, into the common cache."""
    name: str = config.workerinput["workerid"]
    number, count = int(name.removeprefix("gw")), config.workerinput["workercount"]
    state = config.stash.get(rewrite.assertstate_key, None)
    if state is None:  # --assert=plain
        return
    for file in _files(config)[number::count]:
        cache = rewrite.get_cache_dir(file) / f"{file.stem}{rewrite.PYC_TAIL}"
        if not cache.exists() and rewrite.try_makedirs(cache.parent):
            source, code = rewrite._rewrite_test(file, config)
            rewrite._write_pyc(state, code, source, cache)


def _files(config: pytest.Config) -> list[Path]:
    found: set[Path] = set()
    for argument in config.args:
        path = config.invocation_params.dir / argument.partition("::")[0]
        found |= {path} if path.is_file() else set(path.rglob("test_*.py"))
    return sorted(found)
