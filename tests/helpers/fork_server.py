"""A process that has imported asyncq and forks itself for each Python program that a test starts.

Most of the cost of a short program is the import: 0.5 s of CPU. A fork costs 0.03 s. `helpers.forked` starts
one server for each test process and asks it for programs:

    python -m helpers.fork_server SOCKET

A request is one message on a connection of its own: the program as JSON, with its three streams as
descriptors. The answers are the program's process id and, when it has ended, its exit code.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import selectors
import socket
import struct
import sys
import threading
import types
import warnings
from pathlib import Path
from typing import Any

REQUEST_SIZE = 200_000
"""The largest size of a request in bytes. Most of it is the environment."""
NUMBER = struct.Struct("i")

IMPORTS = (
    "anyio._backends._asyncio",  # what anyio imports when it is first asked for something
    "asyncq.broker.transport.connection",
    "asyncq.embedded.operations",
    "asyncq.broker.transport.scripts",
    "asyncq.cli.main",
    "asyncq.worker.processes.child",
    "uvloop",
)


class Server:
    """Serves requests until the process that started it has ended."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(path)
        self._listener.listen()
        self._parent = os.pidfd_open(os.getppid())
        self._running: dict[int, tuple[int, socket.socket]] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._parent, selectors.EVENT_READ)

    def next_program(self) -> Program | None:
        """Returns a program in each new process; in the server, None when the server's parent has ended."""
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._parent:
                    return None
                if key.fileobj is not self._listener:
                    self._report_end(key.fd)
                elif program := self._fork():
                    return program

    def _fork(self) -> Program | None:
        """Forks. Returns the program in the new process, and None in the server."""
        connection, _ = self._listener.accept()
        request, streams, _, _ = socket.recv_fds(connection, REQUEST_SIZE, 3)
        pid = os.fork()
        if not pid:
            self._close()
            return Program(connection, streams, **json.loads(request))
        for stream in streams:
            os.close(stream)
        watched = os.pidfd_open(pid)
        self._running[watched] = pid, connection
        self._selector.register(watched, selectors.EVENT_READ)
        return None

    def _report_end(self, watched: int) -> None:
        pid, connection = self._running.pop(watched)
        self._selector.unregister(watched)
        os.close(watched)
        _, status = os.waitpid(pid, 0)
        with connection, contextlib.suppress(BrokenPipeError):  # the test may have ended
            connection.send(NUMBER.pack(os.waitstatus_to_exitcode(status)))

    def _close(self) -> None:
        """Closes, in a new process, all descriptors of the server."""
        self._selector.close()
        self._listener.close()
        os.close(self._parent)
        for watched, (_, connection) in self._running.items():
            os.close(watched)
            connection.close()


class Program:
    """A Python program: does what `python ARGUMENTS` does once the interpreter runs."""

    def __init__(
        self,
        connection: socket.socket,
        streams: list[int],
        *,
        arguments: list[str],
        folder: str,
        environ: dict[str, str],
    ) -> None:
        self._connection = connection
        self._streams = streams
        self._arguments = arguments
        self._folder = folder
        self._environ = environ

    def run(self, path: list[str]) -> None:
        """Runs the program as `__main__`.

        Args:
            path: folders of modules, beside the program's own folder and `PYTHONPATH`.
        """
        os.chdir(self._folder)
        os.environ.clear()
        os.environ.update(self._environ)
        for number, stream in enumerate(self._streams):
            os.dup2(stream, number)
            os.close(stream)
        _renew_streams()
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        main.__dict__["__builtins__"] = builtins
        code = self._code(main, path)
        # Not before: Python discards an exception that a signal raises while it forks.
        with self._connection:
            self._connection.send(NUMBER.pack(os.getpid()))
        exec(code, main.__dict__)

    def _code(self, main: types.ModuleType, path: list[str]) -> types.CodeType:
        """Sets `sys.argv` and the attributes of `__main__` as Python does, and returns the program's code."""
        match self._arguments:
            case ["-W", action, *rest]:
                _filter_warnings(action)
                self._arguments = rest
                return self._code(main, path)
            case ["-m", name, *words]:
                self._find_modules_in(self._folder, path)
                main.__spec__ = spec = _spec_of_program(name)
                main.__file__, main.__package__ = spec.origin, spec.parent
                sys.argv[:] = [spec.origin, *words]
                return spec.loader.get_code(spec.name)
            case ["-c", text, *words]:
                self._find_modules_in("", path)
                sys.argv[:] = ["-c", *words]
                return compile(text, "<string>", "exec")
            case [file, *_]:
                script = Path(file).absolute()
                self._find_modules_in(str(script.parent), path)
                sys.argv[:] = self._arguments
                main.__file__ = str(script)
                return compile(script.read_bytes(), script, "exec")
        raise ValueError("there is nothing to run")

    def _find_modules_in(self, folder: str, path: list[str]) -> None:
        sys.path[:] = [folder, *filter(None, self._environ.get("PYTHONPATH", "").split(os.pathsep)), *path]
        importlib.invalidate_caches()
        if importlib.util.find_spec("sitecustomize"):
            sys.modules.pop("sitecustomize", None)
            importlib.import_module("sitecustomize")


def _filter_warnings(action: str) -> None:
    """Filters warnings as `-W ACTION::CATEGORY` does."""
    name, _, category = action.partition("::")
    warnings.simplefilter(name, getattr(builtins, category) if category else Warning)  # type: ignore[arg-type]


def _renew_streams() -> None:
    """Makes new objects for stdin, stdout and stderr: those of the server describe the server's streams."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        mode = "w" if number else "r"
        stream = open(number, mode, encoding=old.encoding, errors=old.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stderr.reconfigure(line_buffering=True)


def _spec_of_program(name: str) -> Any:
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    if spec is None:
        raise ModuleNotFoundError(f"no module named {name!r}")
    return spec


def _prepare() -> None:
    """Does the work that nearly every program of asyncq would repeat: imports, scripts, commands."""
    for name in IMPORTS:
        importlib.import_module(name)
    sys.modules["asyncq.broker.transport.scripts"].load()
    sys.modules["asyncq.cli.main"].commands()


def main(path: str) -> None:
    """Serves requests. In each new process, it runs the program and ends as the program does."""
    _prepare()
    assert threading.active_count() == 1, "a process with threads cannot be forked"
    gc.collect()
    gc.freeze()  # else the first collection in each new process copies all of the server's memory
    base = [folder for folder in sys.path[1:] if folder not in os.environ["PYTHONPATH"].split(os.pathsep)]
    server = Server(path)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if program := server.next_program():
        del server
        program.run(base)


if __name__ == "__main__":
    main(sys.argv[1])
