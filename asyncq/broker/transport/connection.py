"""Makes an `Address` of a URL, and a connected and authenticated transport of an `Address`. redis-py
connects, speaks TLS and authenticates; then `pipe` takes over the transport. The only module that imports
redis-py.

Runs on the loop that needs the connection; `BlockingConnection` is for a thread without a loop.

redis-py's defaults are switched off, for they are dangerous for a queue (measured with 8.1). It sends a
command again when a reply is lost, up to ten times, whatever the command. It cuts reads off after five
seconds, blocking ones too. Its read time-out costs half of a worker's CPU. asyncq has time-outs, retries and
reconnection of its own, see `pipe` and `reconnect`.

Imported when the first connection is made and not with asyncq: redis-py would take a third of the time of
`import asyncq`, and a process that runs a task's body needs no connection.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import hiredis
import redis.exceptions as foreign
from redis import connection as blocking
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.driver_info import DriverInfo
from redis.retry import Retry as BlockingRetry

from asyncq.broker.transport import supported_servers
from asyncq.broker.transport.server_error import ServerError, Unfit
from asyncq.broker.transport.supported_servers import Wanted
from asyncq.broker.transport.url import check, mask, split_cluster, split_sentinel
from asyncq.errors import BrokerNotConfigured, BrokerUnavailable
from asyncq.system import forks
from asyncq.system.threads import in_daemon_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log: logging.Logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 2.0
"""Seconds for a connect. The handshake as a whole may take twice as long."""
_DRIVER = DriverInfo()
"""What redis-py reports of itself in CLIENT SETINFO. Made once: it reads its own version off the disk each
time."""


class _ByAddress(Connection):
    """Connects to an IP address of the server. asyncq resolves the name before: an asyncio loop would resolve
    it in its default executor, which belongs to the user and may be full.
    """

    at: str | None = None
    """The IP address to connect to; None for the host of the URL."""

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = dict(super()._connection_arguments())
        if self.at is not None:
            if "ssl" in arguments:
                arguments["server_hostname"] = arguments["host"]  # the certificate is for the name
            arguments["host"] = self.at
        return arguments


class _KnownTransport(asyncio.StreamReaderProtocol):
    """Knows its transport before the connect is done."""

    made: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made = transport
        super().connection_made(transport)


class _ByAddressWithTls(_ByAddress, SSLConnection):
    """The same with TLS. A connect or a handshake that fails or is cancelled is cut off at once. asyncio and
    redis-py would wait for the other end to say goodbye: a loop that is closed before that leaves the socket
    open.
    """

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = _KnownTransport(reader, loop=loop)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                transport, _ = await loop.create_connection(lambda: protocol, **self._connection_arguments())
        except BaseException:
            if protocol.made is not None:
                cast("asyncio.Transport", protocol.made).abort()
            raise
        if self.socket_keepalive:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._reader, self._writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def disconnect(self, *_: Any, **__: Any) -> None:
        let_go(self)


_BY_ADDRESS: Mapping[type[AbstractConnection], type[AbstractConnection]] = {
    Connection: _ByAddress,
    SSLConnection: _ByAddressWithTls,
}


class _Interruptible(blocking.Connection):
    """A blocking connection whose connect another thread can end."""

    connecting: socket.socket | None = None
    """The latest socket. redis-py has it only when the connect is done."""

    def _connect(self) -> socket.socket:
        problem = OSError(f"{self.host} has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM
        ):
            self.connecting = sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.socket_keepalive:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                sock.settimeout(self.socket_connect_timeout)
                sock.connect(address)
            except OSError as error:
                sock.close()
                problem = error
            else:
                sock.settimeout(self.socket_timeout)
                return sock
        raise problem


class _InterruptibleWithTls(blocking.SSLConnection, _Interruptible):
    """The same with TLS."""


_BLOCKING: Mapping[type[AbstractConnection], type[Any]] = {  # redis-py gives types to only half of them
    Connection: _Interruptible,
    SSLConnection: _InterruptibleWithTls,
    UnixDomainSocketConnection: blocking.UnixDomainSocketConnection,
}
"""For each connection class for a loop, the one for a thread without a loop. Both take the same options."""
_NO_FILE = (
    "a file that ssl_ca_certs, ssl_certfile or ssl_keyfile names does not exist\n"
    "Write the paths of files in PEM format"
)
_REFUSALS = (foreign.AuthenticationError, foreign.AuthorizationError, foreign.NoPermissionError)
_ALIASES = {
    "valkey": "redis",
    "valkeys": "rediss",
    "valkey+unix": "unix",
    "valkey+sentinel": "redis+sentinel",
    "valkeys+sentinel": "rediss+sentinel",
    "valkey+cluster": "redis+cluster",
    "valkeys+cluster": "rediss+cluster",
}


_KINDS = {Wanted.SERVER: "", Wanted.CLUSTER: "+cluster", Wanted.PRIMARY: "+cluster"}
"""What follows `redis` in the scheme of a URL, by what was looked for."""


class NotMaster(BrokerUnavailable):
    """A server that should be the master is a replica."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, and how to log in. Its `repr` shows no password."""

    url: str = field(repr=False)
    connection_class: type[AbstractConnection]
    options: Mapping[str, Any] = field(repr=False)
    revive: Callable[[], None] | None = None
    """Starts the server again if it is an embedded one and has died. Blocks."""
    blocking_class: type[Any] = blocking.Connection
    """The connection class for a thread without a loop."""
    has_virtual_clock: bool = False
    """Whether it is a test server, whose scripts read the time of a virtual clock."""
    wanted: Wanted = Wanted.SERVER
    """What must be there."""
    sentinels: Sentinels | None = None
    """Who knows where the server is. `options` then has no host and no port."""
    seeds: tuple[tuple[str, int], ...] = ()
    """Hosts and ports of some nodes of a Cluster. `options` then has no host and no port."""

    @property
    def is_cluster(self) -> bool:
        """Whether the address is that of a Cluster."""
        return bool(self.seeds)

    def node(self, host: str, port: int, wanted: Wanted = Wanted.PRIMARY) -> Address:
        """Returns the address of a node of the Cluster."""
        options = {**self.options, "host": host, "port": port}
        return dataclasses.replace(self, options=options, seeds=(), wanted=wanted)

    def at(self, host: str, port: int) -> Address:
        """Returns the address of the master at a host, which a Sentinel has named."""
        options = {**self.options, "host": host, "port": port}
        return dataclasses.replace(self, options=options, sentinels=None, wanted=Wanted.MASTER)

    @property
    def is_plain_tcp(self) -> bool:
        """Whether what is sent can be read on the way: neither TLS nor a unix socket."""
        return self.connection_class is Connection

    @property
    def safe_url(self) -> str:
        """The URL with its password masked, for logs and errors."""
        return mask(self.url)


DISMISSED = 10.0
"""For so many seconds after a Sentinel has reported a new master, no connection leads to another server. The
other Sentinels may still name the old one. It calls itself a master until a Sentinel has looked at it again,
up to ten seconds later. What a worker that reads at the new master would store at the old one is lost."""


class Sentinels:
    """The Sentinels of one master. Used by the loop and by the thread of the heartbeat.

    Args:
        master: its name.
        addresses: of the Sentinels.
    """

    def __init__(self, master: str, addresses: tuple[Address, ...]) -> None:
        self.master = master
        self._addresses = addresses
        self._first = 0
        self._reported: tuple[tuple[str, int], float] | None = None

    def in_order(self) -> tuple[Address, ...]:
        """Returns the addresses in the order in which they should be asked."""
        first = self._first
        return self._addresses[first:] + self._addresses[:first]

    def prefer(self, address: Address) -> None:
        """Asks this Sentinel first, from now on: it has answered."""
        self._first = self._addresses.index(address)

    def distrust(self, address: Address) -> None:
        """Asks this Sentinel last, from now on: what it has answered was wrong, or is known too late."""
        self._first = (self._addresses.index(address) + 1) % len(self._addresses)

    def report(self, host: str, port: int) -> None:
        """Notes that a Sentinel has reported a new master."""
        self._reported = (host, port), time.monotonic()

    def is_dismissed(self, host: str, port: int) -> bool:
        """Returns whether a Sentinel has reported another master than this one in the last seconds."""
        if self._reported is None:
            return False
        master, since = self._reported
        return master != (host, port) and time.monotonic() - since < DISMISSED


class Handshaken(Protocol):
    """redis-py's connection after the handshake. It must be kept alive: it closes the transport when it is
    collected.
    """

    _reader: asyncio.StreamReader | None
    _writer: asyncio.StreamWriter | None


def parse(url: str, revive: Callable[[], None] | None = None) -> Address:
    """Makes an `Address` of a URL: `redis://`, `rediss://` (TLS, the certificate is verified), `unix://`,
    `redis+sentinel://`, `rediss+sentinel://`, `redis+cluster://`, `rediss+cluster://`, and the same with
    `valkey` in place of `redis`.

    Args:
        url: of the server.
        revive: starts the server again, see `Address.revive`.

    Raises:
        BrokerNotConfigured: not such a URL. The first line says what is wrong, the second what to write.
    """
    plain = _plain_url(url)
    scheme = plain.partition("://")[0]
    try:
        if scheme in {"redis+sentinel", "rediss+sentinel"}:
            return _with_sentinels(url, plain)
        if scheme in {"redis+cluster", "rediss+cluster"}:
            return _of_cluster(url, plain)
        if scheme in {"redis", "rediss", "unix"}:
            check(plain)
            return _address(url, plain, revive=revive)
    except ValueError as error:
        raise BrokerNotConfigured(f"{mask(url)!r}: {error}") from error
    raise BrokerNotConfigured(
        f"{mask(url)!r} is not a server URL: write redis://host:6379/0, rediss://, unix:///path/to/socket"
        ", redis+sentinel://host:26379/mymaster, redis+cluster://host:6379, valkey://, embedded:// or memory://"
    )


def _address(url: str, plain: str, **fields: Any) -> Address:
    """Makes an `Address` of a URL that was checked.

    Args:
        url: as the user has written it.
        plain: in a form that redis-py knows.
        fields: of the address.
    """
    options: dict[str, Any] = dict(parse_url(plain))
    connection_class = options.pop("connection_class", Connection)
    return Address(url, connection_class, options, blocking_class=_BLOCKING[connection_class], **fields)


def _with_sentinels(url: str, plain: str) -> Address:
    parts = split_sentinel(plain)
    # Their URLs are made here, and show no more than hosts and options: fit for errors about one of them.
    addresses = tuple(_address(each, each, wanted=Wanted.SENTINEL) for each in parts.sentinels)
    address = _address(url, parts.server, sentinels=Sentinels(parts.master, addresses))
    kept = {name: value for name, value in address.options.items() if name not in {"host", "port"}}
    return dataclasses.replace(address, options=kept)


def _of_cluster(url: str, plain: str) -> Address:
    nodes: list[dict[str, Any]] = [dict(parse_url(each)) for each in split_cluster(plain)]
    seeds = tuple((str(node["host"]), int(node.get("port", 6379))) for node in nodes)
    address = _address(url, split_cluster(plain)[0], seeds=seeds)
    kept = {name: value for name, value in address.options.items() if name not in {"host", "port"}}
    return dataclasses.replace(address, options=kept)


async def connect(address: Address, name: str) -> Handshaken:
    """Connects, in one try, and does the handshake: RESP3, credentials, database. Takes at most
    `2 * CONNECT_TIMEOUT` seconds.

    Args:
        address: of the server.
        name: of the connection, in the server's CLIENT LIST.

    Raises:
        BrokerUnavailable: no answer, connection refused, or the server is loading; another try may help.
        ServerError: refused for a reason that stays: wrong credentials, no permission; or `Unfit`.
    """
    options = {
        **address.options,
        "protocol": 3,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "health_check_interval": 0,
        "driver_info": _DRIVER,
    }
    # `_introduce` selects the database, and not redis-py: a Cluster and a Sentinel refuse the SELECT, and the
    # answer to HELLO gives a better error for them.
    database = options.pop("db", None) or 0
    kind = _BY_ADDRESS.get(address.connection_class, address.connection_class)
    connection: Any = kind(**options)  # redis-py gives types to only half of it
    try:
        # The handshake reads without a time-out of its own. A server that accepts and then sends nothing must
        # not hold us up.
        await asyncio.wait_for(_introduce(connection, name, database, address.wanted), CONNECT_TIMEOUT * 2)
    except Unfit as error:
        is_one_of_many = address.wanted not in {Wanted.SERVER, Wanted.MASTER}
        where = place(address) if is_one_of_many else address.safe_url
        raise Unfit(f"{where}: {error}") from None
    except NotMaster as error:
        raise NotMaster(f"{address.safe_url}: {place(address)} {error}") from None
    except _REFUSALS as error:
        raise ServerError(_with_code(error)) from error
    except foreign.BusyLoadingError as error:
        raise BrokerUnavailable(f"{address.safe_url}: the server is loading its data") from error
    except (foreign.RedisError, OSError, TimeoutError) as error:
        if isinstance(error.__cause__, _REFUSALS):  # over a unix socket redis-py wraps them
            raise ServerError(_with_code(error.__cause__)) from error
        if problem := _problem_that_stays(address, error):
            raise Unfit(f"{address.safe_url}: {problem}") from error
        problem = f"{_nobody(address)} ({_reason(error)})"
        raise BrokerUnavailable(problem + _tls_advice(address, error)) from error
    return cast("Handshaken", connection)


def endpoint(handshaken: Handshaken) -> tuple[str, int] | None:
    """Returns the host and the port of a connection; None for a socket."""
    host, port = getattr(handshaken, "host", None), getattr(handshaken, "port", None)
    return None if host is None or port is None else (str(host), int(port))


def slot_of(key: str) -> int:
    """Returns the slot of a Cluster in which a key lies."""
    slot: int = key_slot(key.encode())
    return slot


def place(address: Address) -> str:
    """Returns the host and the port of an address, for errors."""
    host = str(address.options.get("host", "localhost"))
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{address.options.get('port', 6379)}"


def let_go(connection: Any) -> None:
    """Closes a connection that no pipe has taken over, also half-way through its handshake. Does nothing the
    second time.
    """
    writer, connection._writer, connection._reader = connection._writer, None, None
    if writer is not None:
        writer.transport.abort()


async def _introduce(connection: Any, name: str, database: int, wanted: Wanted) -> None:
    """Connects, and in one more round trip asks what server this is, names the connection, and selects the
    database.

    Raises:
        Unfit: asyncq cannot work with this server.
        NotMaster: it should be a master and is a replica.
    """
    try:
        try:
            await _reach(connection)
        except AttributeError:
            # redis-py takes every answer to a HELLO with a password for a map. That of RESP2 is an array.
            raise Unfit(supported_servers.NO_RESP3) from None
        if (socket := connection._writer.transport.get_extra_info("socket")) is not None:
            forks.close_in_children(connection, socket.fileno())
        await _ask_who_it_is(connection, name, database, wanted)
    except BaseException:  # redis-py closes it after most errors, but not after a cancellation
        let_go(connection)
        raise


async def _ask_who_it_is(connection: Any, name: str, database: int, wanted: Wanted) -> None:
    """Asks what server this is, names the connection, and selects the database. Raises as `_introduce`."""
    commands: list[tuple[Any, ...]] = [("HELLO",), ("CLIENT", "SETNAME", name)]
    if database:
        commands.append(("SELECT", database))
    for command in commands:
        await connection.send_command(*command)
    answers = [await _answer(connection) for _ in commands]
    _check_hello(answers[0], wanted)
    if isinstance(answers[1], foreign.NoPermissionError) or _is_unknown(answers[1]):
        log.debug("CLIENT SETNAME is refused, so the connections have no names in CLIENT LIST")
    elif isinstance(answers[1], Exception):
        raise answers[1]
    if database and isinstance(answers[2], Exception):
        if "out of range" in str(answers[2]):
            raise Unfit(supported_servers.NO_DATABASE.format(database))
        raise answers[2]


def _check_hello(hello: Any, wanted: Wanted) -> None:
    """Raises `Unfit` or `NotMaster` if the answer to HELLO shows that this is not what was wanted."""
    if isinstance(hello, list):
        raise Unfit(supported_servers.NO_RESP3)  # a proxy has taken the number of the protocol for its own
    if not isinstance(hello, dict):
        return  # an old server, or an error: what follows shows it
    if problem := supported_servers.problem(hello, wanted):
        raise Unfit(problem)
    if wanted is Wanted.MASTER and not supported_servers.is_master(hello):
        raise NotMaster("is a replica, though a Sentinel has named it as the master")
    if wanted is Wanted.PRIMARY and not supported_servers.is_master(hello):
        raise NotMaster("is a replica, though another node has named it as the owner of slots")


def _is_unknown(answer: Any) -> bool:
    """Returns whether an answer says that the server does not know the command: `rename-command`, say."""
    return isinstance(answer, foreign.ResponseError) and "unknown command" in str(answer)


def _problem_that_stays(address: Address, error: Exception) -> str | None:
    """Returns why another try would not help after this error, and what would; None if it may help."""
    if _is_unknown(error):
        return supported_servers.NO_HELLO
    if isinstance(error, foreign.ResponseError) and re.match("NOPROTO|unsupported protocol", str(error)):
        return supported_servers.NO_RESP3
    if isinstance(_innermost(error), FileNotFoundError) and "path" not in address.options:
        return _NO_FILE
    return None


async def _reach(connection: Any) -> None:
    """Connects to the first of the server's IP addresses that accepts a connection."""
    has_name = isinstance(connection, _ByAddress)
    if not has_name or _is_address(connection.host):
        await connection.connect()
        return
    found = await in_daemon_thread(_addresses, connection.host, connection.port)
    for number, address in enumerate(found, 1):
        connection.at = address
        try:
            await connection.connect()
        except foreign.ConnectionError as error:
            if number == len(found) or not isinstance(_innermost(error), OSError):
                raise
        else:
            return


def _addresses(name: str, port: int) -> list[str]:
    """Returns the IP addresses of a host, in the order of the system's preference. Blocks."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False


async def _answer(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except foreign.ResponseError as error:
        return error


def _nobody(address: Address) -> str:
    """Returns what an error about a connection that was not made begins with."""
    match address.wanted:
        case Wanted.MASTER:
            return f"{address.safe_url}: no answer from the master at {place(address)}"
        case Wanted.SENTINEL:
            return f"no Sentinel at {place(address)}"
        case Wanted.CLUSTER | Wanted.PRIMARY:
            return f"{address.safe_url}: no answer from the node at {place(address)}"
    return f"no server at {address.safe_url}"


def _tls_advice(address: Address, error: BaseException) -> str:
    """Returns a second line for an error that may come from one end speaking TLS and the other not; else an
    empty text. Neither end can know.
    """
    cause = _innermost(error)
    kind = _KINDS.get(address.wanted, "+sentinel")
    if issubclass(address.connection_class, SSLConnection):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "\nName the authority that signed its certificate: ?ssl_ca_certs=/path/to/ca.pem"
        if isinstance(cause, (TimeoutError, asyncio.CancelledError, ssl.SSLError)):
            return f"\nIf the server is up and does not speak TLS: write redis{kind}:// instead of rediss{kind}://"
    elif issubclass(address.connection_class, Connection) and isinstance(
        cause, (foreign.InvalidResponse, foreign.ConnectionError, ConnectionResetError, hiredis.ProtocolError)
    ):
        return f"\nIf the server is up and speaks TLS: write rediss{kind}:// instead of redis{kind}://"
    return ""


class BlockingConnection:
    """A blocking connection that sends one command at a time, for the thread of a worker's heartbeat, which
    must not depend on any loop. Used by one thread.

    Every error is a `BrokerUnavailable` or a `ServerError`. After a lost connection, the next call connects
    again.

    Args:
        address: of the server.
        name: of the connection, in the server's CLIENT LIST.
        timeout: seconds for a connect, and for each reply.
        locate: finds the address at each connect; None if it never changes.
    """

    def __init__(
        self, address: Address, name: str, timeout: float, locate: Callable[[], Address] | None = None
    ) -> None:
        self._address = address
        self._locate = locate
        self._is_dropped = False
        self._name = name
        self._options = {
            "protocol": 3,
            "retry": BlockingRetry(NoBackoff(), 0),
            "retry_on_error": [],
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "health_check_interval": 0,
            "driver_info": _DRIVER,
        }
        self._connection: Any = None  # redis-py gives types to only half of it

    def _connected(self) -> Any:
        """Returns the connection, and connects first if need be."""
        if self._connection is None:
            self._connect()
        return self._connection

    def call(self, *command: Any) -> Any:
        """Sends a command and waits for its reply, at most as long as the timeout. Connects if need be.

        Raises:
            BrokerUnavailable: no connection, or no reply in time; the command may have been executed.
            ServerError: an error reply.
        """
        try:
            if self._is_dropped:
                self._is_dropped = False
                self.close()
            connection = self._connected()
            connection.send_command(*command)
            return connection.read_response()
        except BrokerUnavailable:  # of `locate`, or the server is no master
            self.close()
            raise
        except _REFUSALS as error:
            self.close()
            raise ServerError(_with_code(error)) from error
        except (foreign.ConnectionError, foreign.TimeoutError, OSError) as error:
            self.close()
            if isinstance(error.__cause__, _REFUSALS):
                raise ServerError(_with_code(error.__cause__)) from error
            if self._address.wanted is Wanted.SENTINEL:
                raise BrokerUnavailable(f"{_nobody(self._address)} ({_reason(error)})") from error
            raise BrokerUnavailable(f"no answer from {self._address.safe_url} ({_reason(error)})") from error
        except foreign.ResponseError as error:
            raise ServerError(_full_text(error)) from error

    def _connect(self) -> None:
        """Connects, checks what is there, and names the connection."""
        address = self._address if self._locate is None else self._locate()
        self._connection = address.blocking_class(**{**address.options, **self._options})
        self._connection.connect()
        forks.close_in_children(self._connection, self._connection._sock.fileno())
        if address.wanted is not Wanted.SERVER:
            self._connection.send_command("HELLO")
            try:
                _check_hello(self._connection.read_response(), address.wanted)
            except (NotMaster, Unfit) as error:
                self.close()
                raise type(error)(f"{address.safe_url}: {place(address)} {error}") from None
        self._connection.send_command("CLIENT", "SETNAME", self._name)
        try:
            self._connection.read_response()
        except foreign.ResponseError as error:
            if not isinstance(error, foreign.NoPermissionError) and not _is_unknown(error):
                raise
            # `_introduce` has logged it

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """The host and the port of the connection; None if there is none. May be read on any thread."""
        connection = self._connection
        return None if connection is None else endpoint(connection)

    def drop(self) -> None:
        """Breaks the connection, also one that is being made. May be called on any thread: a call under way
        ends with `BrokerUnavailable`, and the next call connects again.
        """
        self._is_dropped = True
        connection = self._connection
        sock = getattr(connection, "_sock", None) or getattr(connection, "connecting", None)
        if sock is not None:
            with suppress(OSError):  # it is closed already
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the socket. A second call does nothing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


def _full_text(error: foreign.ResponseError) -> str:
    """Returns the text of an error with its code in front."""
    # redis-py removes the code from the text of errors for which it has a class.
    known = {
        foreign.NoScriptError: "NOSCRIPT",
        foreign.ReadOnlyError: "READONLY",
        foreign.OutOfMemoryError: "OOM",
    }
    code = known.get(type(error))
    return f"{code} {error}" if code else str(error)


def _plain_url(url: str) -> str:
    """Returns the URL with a scheme that redis-py knows."""
    scheme, separator, rest = url.partition("://")
    return _ALIASES.get(scheme, scheme) + separator + rest


def _with_code(error: Exception) -> str:
    """Returns the text of a refusal with its code in front."""
    text = str(error)
    if isinstance(error, foreign.NoPermissionError):
        return f"NOPERM {text}"
    if text.startswith("HELLO must be called"):
        return f"NOAUTH {text}"  # the code of the server for a missing password
    return text if text.split(" ", 1)[0].isupper() else f"WRONGPASS {text}"


def _reason(error: BaseException) -> str:
    """Returns the innermost cause of an error, in a few words."""
    # redis-py wraps the socket's error in texts of its own. The innermost error says best what is wrong.
    error = _innermost(error)
    text = str(error).strip()
    if isinstance(error, (TimeoutError, asyncio.CancelledError)):
        return "no answer in time"
    return (text[:1].lower() + text[1:]) if text else type(error).__name__


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    return error
