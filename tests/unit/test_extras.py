"""Each integration without its library says which extra brings it; the extra `all` has every one."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
LIBRARIES = {
    "aiohttp": "aiohttp",
    "django": "django",
    "fastapi": "starlette",
    "flask": "flask",
    "jupyter": "IPython",
    "opentelemetry": "opentelemetry",
    "prometheus": "prometheus_client",
    "sentry": "sentry_sdk",
}

# One process for all: each import begins with no library there, as in an environment without the extra.
WITHOUT = """
import importlib, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in [name for name in sys.modules if name.partition(".")[0] in sys.argv[1:]]:
    del sys.modules[name]
sys.meta_path.insert(0, Missing())
for name in NAMES:
    try:
        importlib.import_module(f"asyncq.integrations.{name}")
    except ImportError as error:
        print(error)
    else:
        print("imported", name)
"""


def test_an_integration_without_its_library_names_the_extra():
    libraries = LIBRARIES.values()
    done = subprocess.run(
        [sys.executable, "-c", f"NAMES = {[*LIBRARIES]}\n{WITHOUT}", *libraries],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    errors = dict(zip(LIBRARIES, done.stdout.splitlines(), strict=True))
    assert errors == {name: _missing(name, library) for name, library in LIBRARIES.items()}


def _missing(extra: str, library: str) -> str:
    return (
        f"asyncq.integrations.{extra} needs the library {library}, which is not installed: "
        f"pip install 'asyncq[{extra}]'"
    )


def test_every_integration_that_needs_a_library_is_in_the_table():
    folder = ROOT / "asyncq" / "integrations"
    needs = {
        path.parent.name if path.stem == "__init__" else path.stem
        for path in folder.rglob("*.py")
        if path.stem != "extras" and "with needs_extra(" in path.read_text(encoding="utf-8")
    }
    assert needs == set(LIBRARIES)
    assert needs <= set(EXTRAS)


@pytest.mark.parametrize("name", sorted(set(EXTRAS) - {"all"}))
def test_the_extra_all_has_every_extra(name: str):
    brought = re.findall(r"\w+", " ".join(re.findall(r"\[(.*?)\]", " ".join(EXTRAS["all"]))))
    assert name in brought
