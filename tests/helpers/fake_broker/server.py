"""A fake server: it executes the commands of connections in this process, on data in memory.

asyncq's own scripts run on it (see `scripts`), and its replies go through asyncq's own connections as the
bytes that a server would send. So all code above the socket is the real code. `tests/contract` runs against
it and against a real server.

It may be used from several event loops and threads. Its lock is the lock of the process's one Lua
interpreter.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from asyncq.broker.transport import scripts
from helpers.fake_broker.commands import OK, Data, ErrorReply, Scores, Status
from helpers.fake_broker.scripts import lua, sha_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Iterator

_NAMES = {script.sha.encode(): script.name for script in scripts.load().values()}
_HELLO = {b"server": b"fake", b"version": b"8.0.0", b"proto": 3, b"mode": b"standalone", b"role": b"master"}


class Push(list[Any]):
    """A message that the server pushes, and that answers no command."""


class NoReply:
    """The result of a command whose reply comes later, or as pushes."""


class Session:
    """A connection, as the server sees it.

    Args:
        server: the server to which it belongs.
        deliver: hands bytes to the client, from any thread; None ends the connection.
        loop: the client's loop; None for a blocking client, which never waits for entries.

    Attributes:
        name: the name that the client gave it.
        channels: the channels to which it has subscribed.
    """

    def __init__(
        self,
        server: FakeServer,
        deliver: Callable[[bytes | None], None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.name = ""
        self.channels: set[bytes] = set()
        self._server = server
        self._deliver = deliver
        self._loop = loop
        self._read: tuple[bytes, ...] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._queued: list[list[bytes]] = []

    def execute(self, command: list[bytes]) -> None:
        """Executes a client's command and answers it. During a blocked read, the command waits."""
        with self._server.lock:
            if self._read is not None:
                self._queued.append(command)
                return
            self.answer(self._server.execute(self, command))
            self._server.wake_readers()

    def answer(self, reply: Any) -> None:
        """Sends a reply, or a push."""
        if not isinstance(reply, NoReply):
            self._deliver(encode(reply))

    def cut(self) -> None:
        """Ends the connection from the server's side."""
        self._deliver(None)

    def close(self) -> None:
        """Ends the connection from the client's side. Runs on the client's loop."""
        with self._server.lock:
            self._server.sessions.discard(self)
            self._read = None
            if self._timer is not None:
                self._timer.cancel()

    # -- a read that waits --

    def wait(self, arguments: tuple[bytes, ...], seconds: float) -> NoReply:
        """Blocks a read until there are entries, at most so many seconds."""
        assert self._loop is not None
        self._read = arguments
        self._timer = self._loop.call_later(seconds, self._end_wait, arguments)
        return NoReply()

    def answer_read(self) -> None:
        """Answers the blocked read, if there is one and there are entries."""
        if self._read is not None and (found := self._server.data.xreadgroup(*self._read)):
            self._end_read(found)

    def _end_wait(self, arguments: tuple[bytes, ...]) -> None:
        with self._server.lock:
            if self._read is arguments:
                self._end_read(None)

    def _end_read(self, found: Any) -> None:
        self._read = None
        self.answer(found)
        queued, self._queued = self._queued, []
        for command in queued:
            self.execute(command)


class FakeServer:
    """A server without a socket.

    Attributes:
        data: its data.
        sessions: its connections.
        calls: how often each command and each script was executed, by name.
        is_up: whether it accepts connections.
        loses_messages: whether messages on channels are lost.
    """

    def __init__(self) -> None:
        self.lock = lua().lock
        self.data = Data(self._publish)
        self.sessions: set[Session] = set()
        self.calls: Counter[str] = Counter()
        self.is_up = True
        self.loses_messages = False
        self._scripts: dict[bytes, str] = {}
        self._lost: Counter[str] = Counter()
        self._refused: dict[str, list[str]] = {}

    # -- for tests --

    def do(self, *command: str | bytes | float) -> Any:
        """Executes one command, such as `do("MGET", key)`, and returns its reply."""
        words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
        with self.lock:
            answer = self.data.call(words)
            self.wake_readers()
        return answer

    def keys(self, kind: str = "") -> list[str]:
        """Returns all keys, or those that contain a text."""
        with self.lock:
            return [key for each in self.data.living() if kind in (key := each.decode())]

    def advance(self, seconds: float) -> None:
        """Moves the server's clock forward: keys with a shorter time to live expire."""
        with self.lock:
            self.data.ahead += seconds

    def cut(self, name: str = "") -> None:
        """Breaks all connections whose name begins with a text."""
        for session in list(self.sessions):
            if session.name.startswith(name):
                session.cut()

    def stop(self) -> None:
        """Breaks all connections and accepts no others. The data stay."""
        self.is_up = False
        self.cut()

    def start(self) -> None:
        """Accepts connections again."""
        self.is_up = True

    @contextlib.contextmanager
    def lose_messages(self) -> Iterator[None]:
        """Loses all messages on channels during the block."""
        self.loses_messages = True
        try:
            yield
        finally:
            self.loses_messages = False

    def forget_scripts(self) -> None:
        """Forgets all scripts, like a server that was restarted."""
        self._scripts.clear()

    def lose_reply(self, name: str) -> None:
        """Executes the next call of a command or script, and breaks the connection before it answers."""
        self._lost[name] += 1

    def refuse(self, name: str, error: str, times: int = 1) -> None:
        """Answers the next calls of a command or script with an error, and does not execute them."""
        self._refused.setdefault(name, []).extend([error] * times)

    # -- for connections --

    def execute(self, session: Session, command: list[bytes]) -> Any:
        """Executes a command and returns its reply, or an error as a value."""
        name = _name(command)
        if errors := self._refused.get(name):
            return ErrorReply(errors.pop(0))
        self.calls[name] += 1
        try:
            reply = self._execute(session, command)
        except ErrorReply as error:
            reply = error
        if self._lost[name] > 0:
            self._lost[name] -= 1
            session.cut()
            return NoReply()
        return reply

    def _execute(self, session: Session, command: list[bytes]) -> Any:
        of_connection = _OF_CONNECTIONS.get(command[0])
        if of_connection is not None:
            return of_connection(self, session, *command[1:])
        return self.data.call(command)

    def _hello(self, _session: Session) -> dict[bytes, Any]:
        return _HELLO

    def _client(self, session: Session, _setname: bytes, name: bytes) -> Status:
        session.name = name.decode()
        return OK

    def _ping(self, _session: Session) -> Status:
        return Status(b"PONG")

    def _script(self, _session: Session, _load: bytes, source: bytes) -> bytes:
        sha = sha_of(source.decode()).encode()
        self._scripts[sha] = source.decode()
        return sha

    def _evalsha(self, _session: Session, sha: bytes, count: bytes, *words: bytes) -> Any:
        source = self._scripts.get(sha)
        if source is None:
            raise ErrorReply("NOSCRIPT No matching script.")
        return lua().run(self.data, source, words[: int(count)], words[int(count) :])

    def _xreadgroup(self, session: Session, *arguments: bytes) -> Any:
        found = self.data.xreadgroup(*arguments)
        if found is None and b"BLOCK" in arguments:
            return session.wait(arguments, int(arguments[arguments.index(b"BLOCK") + 1]) / 1000)
        return found

    def wake_readers(self) -> None:
        """Answers all blocked reads for which there are entries."""
        for session in list(self.sessions):
            session.answer_read()

    # -- channels --

    def _subscribe(self, session: Session, *channels: bytes) -> NoReply:
        for channel in channels:
            session.channels.add(channel)
            session.answer(Push([b"subscribe", channel, len(session.channels)]))
        return NoReply()

    def _unsubscribe(self, session: Session, *channels: bytes) -> NoReply:
        for channel in channels:
            session.channels.discard(channel)
            session.answer(Push([b"unsubscribe", channel, len(session.channels)]))
        return NoReply()

    def _publish(self, channel: bytes, message: bytes) -> int:
        receivers = (
            [] if self.loses_messages else [one for one in list(self.sessions) if channel in one.channels]
        )
        for session in receivers:
            session.answer(Push([b"message", channel, message]))
        return len(receivers)


def _name(command: list[bytes]) -> str:
    """Returns the name of a command; of a command that runs a script, the script's name."""
    if command[0] == b"EVALSHA":
        return _NAMES.get(command[1], "EVALSHA")
    return command[0].decode().upper()


def encode(reply: Any) -> bytes:
    """Encodes a reply or a push as RESP3."""
    return _ENCODERS[type(reply)](reply)


def _encode_all(sign: bytes, parts: Collection[Any], length: int) -> bytes:
    return b"%s%d\r\n%s" % (sign, length, b"".join(map(encode, parts)))


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"_\r\n",
    ErrorReply: lambda error: b"-%s\r\n" % str(error).replace("\n", " ").encode(),
    Status: lambda text: b"+%s\r\n" % text,
    bytes: lambda data: b"$%d\r\n%s\r\n" % (len(data), data),
    int: lambda value: b":%d\r\n" % value,
    float: lambda value: b",%s\r\n" % repr(value).encode(),
    dict: lambda pairs: _encode_all(b"%", [part for pair in pairs.items() for part in pair], len(pairs)),
    set: lambda members: _encode_all(b"~", members, len(members)),
    list: lambda items: _encode_all(b"*", items, len(items)),
    Scores: lambda pairs: _encode_all(b"*", pairs, len(pairs)),
    Push: lambda items: _encode_all(b">", items, len(items)),
}

_OF_CONNECTIONS: dict[bytes, Callable[..., Any]] = {
    b"HELLO": FakeServer._hello,
    b"CLIENT": FakeServer._client,
    b"PING": FakeServer._ping,
    b"SCRIPT": FakeServer._script,
    b"EVALSHA": FakeServer._evalsha,
    b"XREADGROUP": FakeServer._xreadgroup,
    b"SUBSCRIBE": FakeServer._subscribe,
    b"UNSUBSCRIBE": FakeServer._unsubscribe,
}
"""Commands about a connection, or about the scripts that the server knows. All others are about data."""
