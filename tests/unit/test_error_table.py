"""The error table: what each error reply means, and that commands are sent again as the table says.

The server is a socket of the test, which answers with given replies. A real server cannot be made to send
most of them.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import hiredis
import pytest
from helpers.examples import examples
from helpers.stopwatch import Stopwatch
from hypothesis import given, settings, strategies as st

from asyncq import BrokerUnavailable, QueueFull
from asyncq.broker import commands as commands_module
from asyncq.broker.commands import FOREVER, Commands
from asyncq.broker.transport.connection import parse
from asyncq.broker.transport.server_error import ErrorAction, ServerError
from asyncq.config import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TABLE = {
    ErrorAction.RETRY: [
        "LOADING",
        "BUSY",
        "TRYAGAIN",
        "ASK",
        "CLUSTERDOWN",
        "NOREPLICAS",
        "MASTERDOWN",
        "UNBLOCKED",
        "MISCONF",
    ],
    ErrorAction.MOVED: ["MOVED"],
    ErrorAction.RECONNECT: ["READONLY"],
    ErrorAction.LOAD: ["NOSCRIPT"],
    ErrorAction.NO_GROUP: ["NOGROUP"],
    ErrorAction.FULL: ["OOM"],
    ErrorAction.DENIED: ["NOAUTH", "WRONGPASS", "NOPERM"],
    ErrorAction.FATAL: ["WRONGTYPE", "CROSSSLOT", "ERR", "EXECABORT"],
}
CODES = [(code, action) for action, codes in TABLE.items() for code in codes]
PASSING = [
    code
    for code, action in CODES
    if action in {ErrorAction.RETRY, ErrorAction.MOVED, ErrorAction.RECONNECT, ErrorAction.LOAD}
]
FINAL = [
    code for code, action in CODES if action in {ErrorAction.NO_GROUP, ErrorAction.DENIED, ErrorAction.FATAL}
]


# -- the table ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "action"), CODES)
def test_each_error_code_has_its_action_whatever_text_follows_it(code, action):
    for text in (code, f"{code} because of this and that", f"-{code} as on the wire"):
        assert ServerError(text).action is action


def test_every_action_is_in_the_table():
    assert set(TABLE) == set(ErrorAction)


def test_too_many_clients_is_a_temporary_error_though_its_code_is_only_err():
    assert ServerError("ERR max number of clients reached").action is ErrorAction.RETRY


@settings(deadline=None)
@given(st.text())
def test_an_error_code_that_the_table_does_not_have_is_fatal(text):
    known = dict(CODES)
    error = ServerError(text)
    assert str(error) == text
    if "max number of clients" not in text:
        assert error.action is known.get(error.code, ErrorAction.FATAL)


@settings(deadline=None)
@given(st.sampled_from(CODES), st.text(alphabet=st.characters(exclude_categories=["L"])))
def test_an_error_code_is_a_whole_word(known, tail):
    code, action = known
    if tail and not tail.startswith(" "):
        assert ServerError(code + tail).action is ErrorAction.FATAL
    else:
        assert ServerError(code + tail).action is action


# -- what Commands does then ---------------------------------------------------------------------------


class ScriptedServer:
    """Answers scripts with the given replies, one after the other, and then with OK."""

    def __init__(self, replies: list[str], load_reply: str = "") -> None:
        self.replies = list(replies)
        self.load_reply = load_reply
        self.connections = 0
        self.calls: list[tuple[bytes, ...]] = []
        self.loads = 0
        self.handlers: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        handler = asyncio.current_task()
        assert handler is not None
        self.handlers.add(handler)
        parser = hiredis.Reader()
        try:
            while data := await reader.read(65536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    writer.write(self.answer(tuple(command)))
        except ConnectionError:
            """The client closed its connection during the reply, as it may at any time."""
        finally:
            writer.close()

    def answer(self, command: tuple[bytes, ...]) -> bytes:
        if command[0] == b"HELLO":
            return b"%1\r\n+proto\r\n:3\r\n"
        if command[0] == b"SCRIPT":
            self.loads += 1
            reply, self.load_reply = self.load_reply, ""
            return f"-{reply}\r\n".encode() if reply else b"+OK\r\n"
        if command[0] == b"EVALSHA":
            self.calls.append(command)
            reply = self.replies.pop(0) if self.replies else ""
            return f"-{reply} from the test\r\n".encode() if reply else b"+answered\r\n"
        return b"+OK\r\n"


@asynccontextmanager
async def serving(directory: Path, server: ScriptedServer, timeout: float = 5.0) -> AsyncIterator[Commands]:
    path = directory / "s"
    path.unlink(missing_ok=True)
    listener = await asyncio.start_unix_server(server.serve, str(path))
    commands = Commands(parse(f"unix://{path}"), Settings(operation_timeout=timeout), "c")
    try:
        yield commands
    finally:
        await commands.close()
        listener.close()
        if server.handlers:
            await asyncio.wait(server.handlers, timeout=5)


async def forget(commands: Commands, **options: Any) -> Any:
    return await commands.run(commands.shards[0], "forget", ("key",), **options)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module", autouse=True)
def _short_pauses():
    """The tests check which commands are sent, so pauses take no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands_module, "pause", lambda _attempt: 0.001)
        yield


@settings(deadline=None, max_examples=examples(40))
@given(replies=st.lists(st.sampled_from(PASSING), max_size=6))
def test_the_same_command_is_sent_again_until_temporary_errors_end(directory, replies):
    async def play() -> None:
        server = ScriptedServer(replies)
        async with serving(directory, server) as commands:
            assert await forget(commands) == b"answered"
        assert len(server.calls) == len(replies) + 1
        assert len(set(server.calls)) == 1
        assert server.connections == 1 + replies.count("READONLY")
        assert server.loads == replies.count("NOSCRIPT") * len(commands.scripts)

    asyncio.run(play())


@settings(deadline=None, max_examples=examples(40))
@given(
    before=st.lists(st.sampled_from(PASSING), max_size=3),
    code=st.sampled_from([*FINAL, "OOM", "NEVERHEARDOF"]),
)
def test_a_lasting_error_is_raised_at_its_first_occurrence(directory, before, code):
    async def play() -> None:
        server = ScriptedServer([*before, code])
        async with serving(directory, server) as commands:
            with pytest.raises(QueueFull if code == "OOM" else ServerError, match=code):
                await forget(commands)
        assert len(server.calls) == len(before) + 1

    asyncio.run(play())


@pytest.mark.parametrize("code", TABLE[ErrorAction.DENIED])
def test_a_worker_waits_until_the_server_accepts_it_again_and_logs_it_once(directory, caplog, code):
    async def play() -> None:
        server = ScriptedServer([code] * 3)
        async with serving(directory, server) as commands:
            assert await forget(commands, timeout=FOREVER) == b"answered"
        # A new password needs a new connection. Rights are checked at each command, so a new right needs
        # none.
        assert server.connections == (1 if code == "NOPERM" else 4)

    asyncio.run(play())
    assert [record.levelname for record in caplog.records if "refuses" in record.message] == ["ERROR"]


def test_a_temporary_error_that_lasts_is_raised_at_the_operation_timeout(directory):
    async def play() -> None:
        server = ScriptedServer(["LOADING"] * 100_000)
        async with serving(directory, server, timeout=0.3) as commands:
            stopwatch = Stopwatch()
            with pytest.raises(BrokerUnavailable, match="LOADING"):
                await forget(commands)
            # It gives up when the next try would come too late: up to one pause before its time is over.
            assert 0.1 < stopwatch.took < 0.55

    asyncio.run(play())


@pytest.mark.parametrize("reply", ["BUSY running a script", "READONLY now a replica", "LOADING data"])
def test_a_temporary_error_while_scripts_are_loaded_is_retried_too(directory, reply):
    async def play() -> None:
        server = ScriptedServer(["NOSCRIPT"], load_reply=reply)
        async with serving(directory, server) as commands:
            assert await forget(commands) == b"answered"

    asyncio.run(play())


def test_a_server_that_does_not_answer_is_given_up_at_the_operation_timeout(directory):
    class SilentServer(ScriptedServer):
        def answer(self, command: tuple[bytes, ...]) -> bytes:
            return b"" if command[0] == b"EVALSHA" else super().answer(command)

    async def play() -> None:
        async with serving(directory, SilentServer([]), timeout=0.3) as commands:
            stopwatch = Stopwatch()
            with pytest.raises(BrokerUnavailable, match="did not answer"):
                await forget(commands)
            assert 0.3 <= stopwatch.took < 0.55

    asyncio.run(play())
