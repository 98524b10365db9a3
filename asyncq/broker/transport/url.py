"""Checks a server's URL before redis-py gets it, and masks its password. Pure functions, on any thread.

redis-py would take an option that it does not know for an argument of its connection, a database that is not
a number for 0, and a password with a `/` in it for a part of the address. The errors of urllib quote texts
that may be a password. No error of this module shows one.
"""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

_OPTIONS = {"db", "username", "password", "socket_keepalive"}
_TLS_OPTIONS = {
    *("ssl_keyfile", "ssl_certfile", "ssl_password", "ssl_cert_reqs", "ssl_check_hostname", "ssl_ca_certs"),
    *("ssl_ca_path", "ssl_ca_data", "ssl_min_version", "ssl_ciphers"),
}
_SENTINEL_OPTIONS = {"sentinel_username": "username", "sentinel_password": "password"}
"""The options with which asyncq logs in at the Sentinels, and what they are called for a server."""
_OWN = {
    *("socket_timeout", "socket_connect_timeout", "timeout", "retry_on_timeout", "retry_on_error", "retry"),
    *("health_check_interval", "max_connections", "protocol", "decode_responses", "encoding", "client_name"),
}
"""Options of redis-py about which asyncq decides by itself."""
_HOST = re.compile(r"\[|localhost$|\d+\.\d+\.\d+\.\d+$", re.ASCII)
"""Matches a text before a colon that is a host for sure, and not a user."""
_MORE_HOSTS = re.compile(r"\d*(,(\[[0-9A-Fa-f:.]*\]|[\w.-]+)(:\d*)?)+$", re.ASCII)
"""Matches the port of the first host of several, and all others."""
_NO_NODE = "Write redis+cluster://host1:6379,host2:6379"
_NO_MASTER = "Write redis+sentinel://host1:26379,host2:26379/mymaster"
_NAMED = {"db": "the database", "username": "the user", "password": "the password"}
_DATABASE_FORMS = {
    "unix": "unix:///path/to/socket?db=0",
    "redis+sentinel": "redis+sentinel://host:26379/mymaster/0",
    "rediss+sentinel": "rediss+sentinel://host:26379/mymaster/0",
}
"""How a database is written where it is not a path."""
_NO_DATABASE = (
    "Leave it out: a Cluster has one database; apps that share it need different values of `namespace`"
)
_CERT_REQS = ("none", "optional", "required")
_ENCODE = (
    "A password with one of # / ? [ ] % in it goes into a URL percent-encoded: "
    "urllib.parse.quote(password, safe='')"
)


def mask(url: str) -> str:
    """Returns the URL with its password masked, for logs and errors.

    Never raises. Masks too much rather than too little: nobody can tell where a password ends that should
    have been percent-encoded.

    >>> mask("redis://me:secret@db:6379/0")
    'redis://me:***@db:6379/0'
    """
    scheme, separator, rest = url.partition("://")
    if not separator or ":" in scheme or "@" in scheme:
        scheme, separator, rest = "", "", url
    shown = re.sub(r"([?&])([^=&]*)=[^&]*", _without_secret, rest)
    head = scheme + separator
    before, at, host = shown.rpartition("@")
    user, colon, _ = (before or shown).partition(":")
    # An `@` is gone: it was in the value of an option that is hidden, or the password holds a `?`.
    if rest.count("@") != shown.count("@"):
        return f"{head}{user}:***" if colon else head + shown
    if at:
        return f"{head}{user}:***@{host}" if colon else head + shown
    user, colon, port = re.split(r"[/?#]", shown, maxsplit=1)[0].partition(":")
    if "+" in scheme and _MORE_HOSTS.match(port):
        return head + shown
    if separator and port and not (port.isascii() and port.isdecimal()) and not _HOST.match(user):
        # The "port" is not a number, so it may be a password: with a `/`, `?` or `#` in it, the real host is
        # behind that sign.
        return f"{head}{user}:***"
    return head + shown


def _without_secret(option: re.Match[str]) -> str:
    name = unquote(option[2]).lower()
    return f"{option[1]}{option[2]}=***" if "pass" in name or "secret" in name else option[0]


class SentinelUrl(NamedTuple):
    """The parts of a URL with the scheme `redis+sentinel` or `rediss+sentinel`.

    Attributes:
        master: the name of the master, as the Sentinels know it.
        server: the URL of the master; its host and port mean nothing.
        sentinels: the URL of each Sentinel.
    """

    master: str
    server: str
    sentinels: tuple[str, ...]


def split_sentinel(url: str) -> SentinelUrl:
    """Checks a URL with the scheme `redis+sentinel` or `rediss+sentinel`, and returns its parts.

    Raises:
        ValueError: something in it is wrong. The first line says what, the second what to write.

    >>> split_sentinel("redis+sentinel://:secret@a,b:5000/shop/1").sentinels
    ('redis://a:26379', 'redis://b:5000')
    >>> split_sentinel("redis+sentinel://:secret@a,b:5000/shop/1").server
    'redis://:secret@a:26379/1'
    """
    scheme, login, hosts, path, query = _parts_of(url, _NO_MASTER)
    name, _, database = path.partition("/")
    if database:
        _check_database(unquote(database), f"{scheme}+sentinel")
    found = [_with_port(host, 26379) for host in hosts]
    for host in found:
        check(f"{scheme}://{login}{host}/{database}{query}", "+sentinel")
    master = _master_name(name)
    options = _options_in(query)
    own = [(_SENTINEL_OPTIONS[name], value) for name, value in options if name in _SENTINEL_OPTIONS]
    shared = [(name, value) for name, value in options if name in _TLS_OPTIONS or name == "socket_keepalive"]
    kept = [(name, value) for name, value in options if name not in _SENTINEL_OPTIONS]
    return SentinelUrl(
        master,
        f"{scheme}://{login}{found[0]}/{database}{_as_query(kept)}",
        tuple(f"{scheme}://{host}{_as_query(own + shared)}" for host in found),
    )


def split_cluster(url: str) -> tuple[str, ...]:
    """Checks a URL with the scheme `redis+cluster` or `rediss+cluster`, and returns the URL of each node that
    it names.

    Raises:
        ValueError: something in it is wrong. The first line says what, the second what to write.

    >>> split_cluster("redis+cluster://:secret@a,b:7000")
    ('redis://:secret@a:6379', 'redis://:secret@b:7000')
    """
    scheme, login, hosts, path, query = _parts_of(url, _NO_NODE)
    if path.strip("/") or any(name == "db" for name, _ in _options_in(query)):
        raise ValueError(f"it names a database\n{_NO_DATABASE}")
    found = tuple(f"{scheme}://{login}{_with_port(host, 6379)}{query}" for host in hosts)
    for each in found:
        check(each, "+cluster")
    return found


class _Parts(NamedTuple):
    """The parts of a URL with several hosts.

    Attributes:
        scheme: of each server, without what follows the `+`.
        login: user and password, with the `@` behind them.
        hosts: each with its port, if it has one.
        path: without the `/` before it.
        query: with the `?` before it.
    """

    scheme: str
    login: str
    hosts: list[str]
    path: str
    query: str


def _parts_of(url: str, form: str) -> _Parts:
    """Splits a URL with several hosts.

    Args:
        url: the URL.
        form: what to write, for the error about a host that is missing.
    """
    scheme, _, rest = url.partition("://")
    if "#" in rest:
        raise ValueError(f"there is a # in it, which the URL of a server cannot have\n{_ENCODE}")
    before, mark, query = rest.partition("?")
    address, _, path = before.partition("/")
    if "@" in path:
        raise ValueError(f"the host is not clear\n{_ENCODE}")
    credentials, at, hosts = address.rpartition("@")
    if not all(hosts.split(",")):
        raise ValueError(f"one of its hosts is empty\n{form}")
    return _Parts(scheme.partition("+")[0], credentials + at, hosts.split(","), path, mark + query)


def _options_in(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query.removeprefix("?"), keep_blank_values=True)


def _as_query(options: list[tuple[str, str]]) -> str:
    return f"?{urlencode(options, quote_via=quote)}" if options else ""


def _master_name(text: str) -> str:
    """Returns the name of the master in a URL."""
    name = unquote(text)
    if not name:
        raise ValueError(f"it does not name a master\n{_NO_MASTER}")
    if re.search(r"[\s/?#@:]", name):
        raise ValueError(f"the name of the master has a character that no such name has\n{_NO_MASTER}")
    return name


def _with_port(host: str, port: int) -> str:
    """Returns the address of a Sentinel, or of a node, with its port."""
    return host if ":" in host.rpartition("]")[2] else f"{host}:{port}"


def check(url: str, kind: str = "") -> None:
    """Checks a URL with the scheme `redis`, `rediss` or `unix`.

    Args:
        url: of a server.
        kind: what follows `redis` or `rediss` in the scheme that the user has written, as `+sentinel`.

    Raises:
        ValueError: redis-py would misunderstand something in it. The first line says what, the second what
            to write.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"it is not a URL\n{_ENCODE}") from None
    if parts.fragment or url.endswith("#"):
        raise ValueError(f"there is a # in it, which the URL of a server cannot have\n{_ENCODE}")
    has_user = "@" in parts.netloc
    if (
        not has_user
        and "@" in parts.path + parts.query
        and ":" in parts.netloc
        and not _has_port(parts.netloc)
    ):
        raise ValueError(f"the host is not clear\n{_ENCODE}")
    if parts.scheme == "unix":
        _check_socket(parts.netloc.rpartition("@")[2], parts.path)
    else:
        _check_host(parts.netloc.rpartition("@")[2], parts.path, mask(url))
    _check_escapes(parts.netloc.rpartition("@")[0])
    _check_options(parts, kind)


def _check_escapes(credentials: str) -> None:
    try:
        unquote(credentials, errors="strict")
        is_encoded = not re.search(r"%(?![0-9A-Fa-f]{2})", credentials)
    except UnicodeDecodeError:
        is_encoded = False
    if not is_encoded:
        raise ValueError(f"a % is not followed by the code of a character\n{_ENCODE}")


def _has_port(address: str) -> bool:
    port = re.fullmatch(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::(\d{1,5})?)?", address, re.ASCII)
    return port is not None and (port[1] is None or 0 < int(port[1]) < 65536)


def _check_socket(host: str, path: str) -> None:
    if host:
        raise ValueError("a socket has no host\nWrite three slashes: unix:///path/to/socket")
    if not path.strip("/"):
        raise ValueError("the socket has no path\nWrite unix:///path/to/socket")


def _check_host(address: str, path: str, masked: str) -> None:
    if not _has_port(address):
        raise ValueError(_wrong_port(address, masked))
    database = unquote(path).strip("/")
    if "@" in database:
        raise ValueError(f"the host is not clear\n{_ENCODE}")
    if database:
        _check_database(database)


def _wrong_port(address: str, masked: str) -> str:
    """Returns what is wrong with a port. Does not show a text that may be a password."""
    host, _, port = address.rpartition(":")
    if ":" in host and not host.startswith("["):
        return f"the host has more than one colon\nWrite an IPv6 address in brackets: [::1]:6379. {_ENCODE}"
    if f"{host}:{port}" not in masked:  # it may be a password, and is not shown
        return f"the port is not a number from 1 to 65535\n{_ENCODE}"
    return f"the port {port!r} is not a number from 1 to 65535\nWrite {host or 'host'}:6379, or leave it out"


def _check_database(text: str, scheme: str = "redis") -> None:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        form = _DATABASE_FORMS.get(scheme, "redis://host:6379/0")
        raise ValueError(
            f"the database {text!r} is not a whole number, 0 or more\n"
            f"Write {form}; apps that share a database need different values of `namespace`"
        )


def _check_options(parts: SplitResult, kind: str) -> None:
    query, scheme = parts.query, parts.scheme
    known = _OPTIONS | _TLS_OPTIONS | (_SENTINEL_OPTIONS.keys() if kind == "+sentinel" else set())
    given = _given_before(parts)
    try:
        options = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise ValueError(f"the text after the ? is not a list of name=value\n{_ENCODE}") from None
    for name, value in options:
        if "@" in name:
            raise ValueError(f"the host is not clear\n{_ENCODE}")
        if name in _OWN:
            raise ValueError(f"the option {name!r} has no effect: asyncq decides that itself\nLeave it out")
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            mend = f"Did you mean {near[0]!r}?" if near else f"The options are {', '.join(sorted(known))}"
            raise ValueError(f"there is no option {name!r}\n{mend}")
        if name in _TLS_OPTIONS and scheme != "rediss":
            raise ValueError(
                f"the option {name!r} is for TLS\n"
                f"Write rediss{kind}:// instead of {scheme}{kind}://, or leave it out"
            )
        if name in given:
            raise ValueError(
                f"{_NAMED.get(name, f'the option {name!r}')} is given twice\nLeave one of them out"
            )
        given.add(name)
        _check_value(name, value, scheme)


def _given_before(parts: SplitResult) -> set[str]:
    """Returns the options that the URL gives before its `?`: database, user, password."""
    given = set()
    if parts.scheme != "unix" and parts.path.strip("/"):
        given.add("db")
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    return given | ({"username"} if user else set()) | ({"password"} if password else set())


def _check_value(name: str, value: str, scheme: str) -> None:
    if name == "db":
        _check_database(value, scheme)
    elif name == "ssl_cert_reqs" and value not in _CERT_REQS:
        near = value.lower().removeprefix("cert_")
        mend = near if near in _CERT_REQS else " or ".join(_CERT_REQS)
        raise ValueError(f"{name}={value!r} is not known\nWrite {name}={mend}")
    elif name == "ssl_min_version" and not value.isdecimal():
        raise ValueError(f"{name}={value!r} is not a number\nWrite 771 for TLS 1.2, 772 for TLS 1.3")
