"""Finds the master that the Sentinels of an address know, and connects to it. An address without Sentinels is
connected to as it is, so whoever makes a connection calls `connect` or `blocking_connection`, and need not
know which of the two it is.

Runs on the loop that needs the connection, or on the thread of a blocking connection.

The master is asked for at each connect, and its role is checked: between the moment in which a master dies
and the moment in which all Sentinels have agreed on another one, their answers are wrong. A refused answer is
asked for again, from the next Sentinel.

redis-py's `Sentinel` is not used: it makes one error of "no Sentinel can be reached", "none knows this name"
and "wrong password", waits for each Sentinel in turn, and has pools of connections with retries of their own.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq.broker.transport import connection
from asyncq.broker.transport.connection import BlockingConnection, let_go
from asyncq.broker.transport.pipe import Pipe, PipeBroken
from asyncq.broker.transport.server_error import ServerError, Unfit
from asyncq.errors import BrokerUnavailable
from asyncq.system.tasks import cancel_and_wait, read_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.broker.transport.connection import Address, Handshaken, Sentinels

SEARCH = 3.0
"""Seconds for which one connect looks for a master while a Sentinel answers, but names none that is there."""
STAGGER = 0.25
"""Seconds after which the next Sentinel is asked, too, if one has not answered; and after which one is asked
again while the server that it has named does not answer."""
_PAUSE = 0.2
"""The most seconds between two questions."""
_ASKING = "asyncq-sentinel"
"""The name of the connections to Sentinels, in their CLIENT LIST."""


class _Named(NamedTuple):
    """The master that a Sentinel has named."""

    sentinel: Address
    host: str
    port: int


async def connect(address: Address, name: str) -> Handshaken:
    """Connects to the server of an address, and does the handshake. With Sentinels it looks for the master
    first, for at most `SEARCH` seconds and the time of a connect: as a failover takes a second or more, this
    finds the new master without the longer pauses of the callers.

    Args:
        address: of the server.
        name: of the connection, in the server's CLIENT LIST.

    Raises:
        BrokerUnavailable: no Sentinel answers, or no master; another try may help.
        ServerError: a server or all Sentinels refuse for a reason that stays. `Unfit` if no Sentinel that
            answers knows the name of the master.
    """
    sentinels = address.sentinels
    if sentinels is None:
        return await connection.connect(address, name)
    loop = asyncio.get_running_loop()
    end = loop.time() + SEARCH
    while True:
        named = await first_answer(sentinels)
        try:
            return await _connect_to(address, sentinels, named, name)
        except BrokerUnavailable:
            sentinels.distrust(named.sentinel)
            if loop.time() > end:
                raise
        await asyncio.sleep(_PAUSE * (0.5 + random.random() / 2))


async def _connect_to(address: Address, sentinels: Sentinels, named: _Named, name: str) -> Handshaken:
    """Connects to the server that a Sentinel has named. Gives up when a Sentinel says that it is
    another one.

    Raises:
        BrokerUnavailable, ServerError: as `connection.connect`.
    """
    _check_up_to_date(address, sentinels, named)
    target = address.at(named.host, named.port)
    opening = asyncio.ensure_future(connection.connect(target, name))
    opening.add_done_callback(read_error)
    try:
        while not (await asyncio.wait([opening], timeout=STAGGER))[0]:
            # A server that hangs would hold us up for as long as a handshake may take.
            _check_up_to_date(address, sentinels, named)
            now = await first_answer(sentinels)
            if (now.host, now.port) != (named.host, named.port) and not opening.done():
                raise BrokerUnavailable(
                    f"{address.safe_url}: the master has changed while it was connected to"
                )
        handshaken = await opening
        _check_up_to_date(address, sentinels, named)
    except BaseException:
        await cancel_and_wait(opening)
        if not opening.cancelled() and opening.exception() is None:
            let_go(opening.result())
        raise
    return handshaken


def _check_up_to_date(address: Address, sentinels: Sentinels, named: _Named) -> None:
    """Raises `BrokerUnavailable` if a Sentinel has named a server that another one has dismissed."""
    if sentinels.is_dismissed(named.host, named.port):
        raise BrokerUnavailable(
            f"{address.safe_url}: the Sentinel at {connection.place(named.sentinel)} still names "
            f"{named.host}:{named.port}, which is the master no more"
        )


async def first_answer(sentinels: Sentinels) -> _Named:
    """Asks the Sentinels for the master, each a moment after the one before it, until one names it.

    Raises:
        BrokerUnavailable: no Sentinel can be reached.
        ServerError: all Sentinels that can be reached refuse; `Unfit` if none of them knows the master.
    """
    asked: set[asyncio.Task[_Named | Exception]] = set()
    problems: list[Exception] = []
    waiting = list(sentinels.in_order())
    try:
        while waiting or asked:
            if waiting:
                asked.add(asyncio.ensure_future(_ask(waiting.pop(0), sentinels.master)))
            done, asked = await asyncio.wait(
                asked, timeout=STAGGER if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for answer in [task.result() for task in done]:
                if isinstance(answer, _Named):
                    sentinels.prefer(answer.sentinel)
                    return answer
                problems.append(answer)
    finally:
        for task in asked:
            task.cancel()
        if asked:  # a loop that is closed before they have ended would leave their sockets open
            await asyncio.wait(asked)
    raise _worst(problems)


def _worst(problems: Sequence[Exception]) -> Exception:
    """Returns the error that tells most: one that nobody expects, else why a Sentinel refuses, else that none
    can be reached.
    """
    for problem in problems:
        if not isinstance(problem, (BrokerUnavailable, ServerError)):
            return problem
    refused = [problem for problem in problems if isinstance(problem, ServerError)]
    if refused:
        # A Sentinel that wants another password may know the master. One that does not know it surely knows
        # no such master.
        return next((problem for problem in refused if not isinstance(problem, Unfit)), refused[0])
    texts = dict.fromkeys(str(problem).partition("\n")[0] for problem in problems)
    advice = next((rest for problem in problems if (rest := str(problem).partition("\n")[2])), "")
    return BrokerUnavailable("no Sentinel can be reached: " + "; ".join(texts) + (advice and f"\n{advice}"))


async def _ask(sentinel: Address, master: str) -> _Named | Exception:
    """Asks one Sentinel for the master. Returns the error if there is no answer: when another Sentinel has
    answered, nobody looks at this task, and asyncio logs an error that a task has raised for nobody.
    """
    try:
        return await _answer_of(sentinel, master)
    except Exception as error:  # noqa: BLE001  whatever it is, the other Sentinels may answer
        return error


async def _answer_of(sentinel: Address, master: str) -> _Named:
    """Returns the master that one Sentinel names.

    Raises:
        BrokerUnavailable: it cannot be reached.
        ServerError: it refuses. `Unfit` if it does not know the master, or is no Sentinel.
    """
    pipe: Pipe | None = None
    try:
        pipe = await Pipe.open(sentinel, _ASKING, timeout=connection.CONNECT_TIMEOUT)
        return _named(sentinel, master, await pipe.call(*_question(master), now=True))
    except PipeBroken as error:
        raise BrokerUnavailable(f"no answer from the Sentinel at {connection.place(sentinel)}") from error
    except ServerError as error:
        raise _refusal(sentinel, error) from error
    finally:
        if pipe is not None:
            pipe.abort()


def _question(master: str) -> tuple[str, ...]:
    return ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", master)


def _named(sentinel: Address, master: str, answer: Any) -> _Named:
    """Returns the master in the answer of a Sentinel."""
    if not answer:
        raise Unfit(
            f"the Sentinel at {connection.place(sentinel)} watches no master {master!r}\n"
            "Use the name of its `sentinel monitor` line; SENTINEL MASTERS lists all names"
        )
    host, port = (part.decode() if isinstance(part, bytes) else str(part) for part in answer)
    return _Named(sentinel, host, int(port))


def _refusal(sentinel: Address, error: ServerError) -> ServerError:
    """Returns the refusal of a Sentinel, with what to do about it. Keeps the code in front."""
    if isinstance(error, Unfit):
        return error
    text = f"{error} (the Sentinel at {connection.place(sentinel)})"
    if error.code in {"NOAUTH", "WRONGPASS"}:
        text += (
            "\nThe user and password in front of the @ are for the server; "
            "those of the Sentinels are ?sentinel_username= and ?sentinel_password="
        )
    return ServerError(text)


def blocking_connection(address: Address, name: str, timeout: float) -> BlockingConnection:
    """Makes a blocking connection to the server of an address. With Sentinels it looks for the master at each
    connect. Arguments as of `BlockingConnection`.
    """
    sentinels = address.sentinels
    if sentinels is None:
        return BlockingConnection(address, name, timeout)

    def locate() -> Address:
        named = _first_answer_blocking(sentinels, min(timeout, connection.CONNECT_TIMEOUT))
        # If the server refuses, the next call asks the next Sentinel. The answer of this one may be right:
        # then nothing is lost but a question.
        sentinels.distrust(named.sentinel)
        _check_up_to_date(address, sentinels, named)
        return address.at(named.host, named.port)

    return BlockingConnection(address, name, timeout, locate)


def _first_answer_blocking(sentinels: Sentinels, timeout: float) -> _Named:
    """Does what `first_answer` does, one Sentinel after the other, without a loop."""
    problems: list[Exception] = []
    end = time.monotonic() + timeout
    for sentinel in sentinels.in_order():
        left = end - time.monotonic()
        if left <= 0:
            break
        asking = BlockingConnection(sentinel, _ASKING, min(left, timeout / 2))
        try:
            return _named(sentinel, sentinels.master, asking.call(*_question(sentinels.master)))
        except BrokerUnavailable as error:
            problems.append(error)
        except ServerError as error:
            problems.append(_refusal(sentinel, error))
        finally:
            asking.close()
    raise _worst(problems)
