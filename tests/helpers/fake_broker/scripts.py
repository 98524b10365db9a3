"""Runs asyncq's own Lua scripts, in Lua 5.1 as the server does, on the data of a fake server.

There is one Lua in a process: a script is compiled once, and one script runs at a time.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from typing import TYPE_CHECKING, Any

import msgpack
from lupa.lua51 import LuaError, LuaRuntime, lua_type

from helpers.fake_broker.commands import ErrorReply, Scores, Status, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helpers.fake_broker.commands import Data

_SETUP = """
function(call, unpacked)
  local function raised(answer)
    if type(answer) == 'table' and answer.err then error(answer) end
    return answer
  end
  redis = {
    call = function(...) return raised(call(...)) end,
    pcall = call,
    acl_check_cmd = function() return true end,
  }
  cmsgpack = { unpack = unpacked }
end
"""

_RUN = """
function(script, keys, arguments)
  local answer = { pcall(script, keys, arguments) }
  if answer[1] or type(answer[2]) == 'table' then return answer[2] end
  error(answer[2], 0)
end
"""


class Lua:
    """The Lua interpreter of this process. Its users hold its lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._lua = LuaRuntime(encoding=None, unpack_returned_tuples=True)
        self._functions: dict[str, Any] = {}
        self._data: Data | None = None
        self._lua.eval(_SETUP)(self._call, self._unpacked)
        self._run = self._lua.eval(_RUN)

    def run(self, data: Data, script: str, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Any:
        """Runs a script on some data, and returns its reply.

        Raises:
            ErrorReply: the script has failed.
        """
        function = self._functions.get(script)
        if function is None:
            body = script.partition("\n")[2]  # behind the line that begins with #!lua
            function = self._functions[script] = self._lua.execute(
                f"return function(KEYS, ARGV)\n{body}\nend"
            )
        self._data = data
        try:
            answer = self._run(function, self._lua.table_from(keys), self._lua.table_from(arguments))
        except LuaError as error:
            raise ErrorReply(f"ERR {error} script: {script.splitlines()[1]}") from error
        finally:
            self._data = None
        return self._reply(answer)

    def _call(self, *words: Any) -> Any:
        assert self._data is not None
        command = [_bytes(word) for word in words]
        try:
            reply = self._data.call(command)
            if isinstance(reply, dict) and command[0].upper() == b"XREADGROUP":
                reply = [[stream, entries] for stream, entries in reply.items()]  # of pairs, under RESP2
            return self._value(reply)
        except ErrorReply as error:
            return self._lua.table_from({b"err": str(error).encode()})

    def _value(self, reply: Any) -> Any:
        """Returns a reply as a script sees it, as under RESP2: maps and sets are lists, floats are text."""
        if isinstance(reply, float):
            return number(reply)
        if isinstance(reply, Status):
            return self._lua.table_from({b"ok": bytes(reply)})
        if isinstance(reply, (bytes, int)):
            return reply
        if isinstance(reply, (dict, Scores)):
            pairs = reply.items() if isinstance(reply, dict) else reply
            reply = [part for pair in pairs for part in pair]
        elif isinstance(reply, set):
            reply = sorted(reply)
        return False if reply is None else self._table(reply)

    def _table(self, items: list[Any]) -> Any:
        return self._lua.table_from([self._value(item) for item in items])

    def _unpacked(self, packed: bytes) -> Any:
        return self._table(msgpack.unpackb(packed, raw=True))

    def _reply(self, value: Any) -> Any:
        """Returns a script's value as a client gets it: lists end at the first nil, numbers are integers."""
        if value is None or value is False:
            return None
        if value is True:
            return 1
        if isinstance(value, (int, float)):
            return int(value)
        if isinstance(value, bytes):
            return value
        assert lua_type(value) == "table"
        if value[b"err"] is not None:
            raise ErrorReply(value[b"err"].decode())
        if value[b"ok"] is not None:
            return Status(value[b"ok"])
        items = []
        while (item := value[len(items) + 1]) is not None:
            items.append(self._reply(item))
        return items


def _bytes(word: Any) -> bytes:
    if isinstance(word, bytes):
        return word
    if isinstance(word, bool) or not isinstance(word, (int, float)):
        raise ErrorReply("ERR Lua redis lib command arguments must be strings or integers")
    return number(word)


def sha_of(source: str) -> str:
    """Returns the name under which the server knows a script."""
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


@functools.cache
def lua() -> Lua:
    """Returns the Lua interpreter of this process."""
    return Lua()
