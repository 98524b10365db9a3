"""The throw-away server of `memory://`: it belongs to one process and ends with it, even if that is killed.

Its data are in a temporary directory, which is removed at the end. `HeldServers.mutex` guards starting and
leaving, on any thread. Everything blocks.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
import time
import weakref
from pathlib import Path
from typing import Any, ClassVar

from asyncq.embedded import launch, resp
from asyncq.embedded.directories import SUN_PATH, ServerDirectories
from asyncq.embedded.launch import command_for, disown
from asyncq.embedded.resp import wait_until_ready
from asyncq.embedded.server_handle import EmbeddedServer, Held, HeldServers
from asyncq.errors import BrokerNotConfigured

logger: logging.Logger = logging.getLogger(__name__)


def private(owner: object | None = None) -> EmbeddedServer:
    """Starts a throw-away server for this process, and returns a handle. Nothing is kept.

    The server ends with the process, even if the process is killed. A second call with the same owner returns
    another handle for the same server. A forked child gets a server of its own.

    Args:
        owner: the object to which the server belongs. Each owner has its own server, which ends when the
            owner is collected. All calls without an owner share one server.

    Returns:
        A handle with the URL to connect to. A server without an owner ends when its last handle is released.

    Raises:
        BrokerNotConfigured: there is no server program, or it cannot start here.

    Example:
        >>> with private() as server:  # doctest: +SKIP
        ...     print(server.url)
    """
    key = None if owner is None else weakref.ref(owner)
    with HeldServers.mutex:
        held = HeldServers.held.get(key)
        started = not isinstance(held, _Throwaway)
        server = _Throwaway(key) if not isinstance(held, _Throwaway) else held
        if started:
            try:
                server.start()
            except BaseException:
                server.close()
                raise
            HeldServers.held[key] = server
            if owner is not None:
                weakref.finalize(owner, server.close).atexit = False  # at exit, `HeldServers` closes it
        return server.handle(server.directory, server.directory / "s", server.version, started)


class _Throwaway(Held):
    """A throw-away server for this process alone.

    A shell starts the server and then reads from a pipe whose write end only this process holds. When that
    end is closed, also by SIGKILL, the shell kills the server and removes its directory. PR_SET_PDEATHSIG
    would not do: it is Linux only, fires when the *thread* that forked ends (such as a to_thread worker), and
    leaves the directory behind.
    """

    _WATCH: ClassVar[str] = (
        'directory=$1; shift; "$@" & server=$!; exec >/dev/null 2>&1; '
        'read -r _; kill -9 "$server"; wait "$server"; rm -rf "$directory"'
    )

    def __init__(self, key: weakref.ref[Any] | None) -> None:
        super().__init__()
        self.key = key
        self.is_of_parent = False
        self.watcher: subprocess.Popen[bytes] | None = None
        self.output = b""
        self.version = ""
        self.directory = Path(tempfile.mkdtemp(prefix="asyncq-"))
        if len(os.fsencode(self.directory / "s")) > SUN_PATH:
            self.directory.rmdir()
            self.directory = Path(tempfile.mkdtemp(prefix="asyncq-", dir="/tmp"))

    def start(self) -> None:
        directories = ServerDirectories(self.directory, self.directory)
        binary = launch.find()
        arguments = command_for(binary, directories.socket, self.directory, durable=False)
        self.watcher = subprocess.Popen(  # noqa: S603  our own argument list
            ["/bin/sh", "-c", self._WATCH, "sh", str(self.directory), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,  # only the server holds it: its end shows that the server has died
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.watcher.stdout is not None
        os.set_blocking(self.watcher.stdout.fileno(), False)
        answer = wait_until_ready(directories.socket, time.monotonic() + resp.DEADLINE, self._died)
        if answer.state != "ready":
            raise BrokerNotConfigured(f"The private server ({binary}) did not start:{self._words()}")
        self.version = answer.version

    def _died(self) -> bool:
        """Returns whether the server's standard output has ended. The output is kept for the error."""
        assert self.watcher is not None
        assert self.watcher.stdout is not None
        try:
            output = os.read(self.watcher.stdout.fileno(), 20_000)
        except BlockingIOError:
            return False
        self.output += output
        return not output

    def _words(self) -> str:
        log = self.directory / "server.log"
        output = self.output + (log.read_bytes() if log.exists() else b"")
        return "".join(f"\n    {line}" for line in output.decode(errors="replace").splitlines()[-8:])

    def leave(self, server: EmbeddedServer) -> None:
        if self.key is None:
            super().leave(server)
        else:
            self.handles.discard(server)

    def close(self) -> None:
        self.handles.clear()
        if HeldServers.held.get(self.key) is self:
            del HeldServers.held[self.key]
        watcher, self.watcher = self.watcher, None
        if self.is_of_parent:
            return
        if watcher is None:
            shutil.rmtree(self.directory, ignore_errors=True)
            return
        _close_pipes(watcher)
        try:
            watcher.wait(resp.DEADLINE)
        except subprocess.TimeoutExpired:
            logger.warning("the private server in %s has not ended yet", self.directory)
            disown(watcher)

    def forked(self) -> None:
        # The child must close its copy of the pipe: it would keep the server alive after the parent's death.
        del HeldServers.held[self.key]
        self.is_of_parent = True
        self.handles.clear()
        watcher, self.watcher = self.watcher, None
        if watcher is not None:
            _close_pipes(watcher)
            watcher.returncode = 0  # as in `disown`, but without `poll`: the watcher is not our child


def _close_pipes(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
