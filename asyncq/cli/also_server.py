"""`asyncq worker --also-url`: a second server that the workers of a command serve, while an app moves from
one server to another one. See `docs/howto/move.md`.

The same server may have both namespaces. Two servers, or a server and a cluster, may differ in their number
of shards and in the namespace, so both may stand behind the URL:
`redis://old:6379/0#shards=1,namespace=shop`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from asyncq import config
from asyncq.cli.exits import CliError, Code

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncq.cli.invocation import Invocation

_OPTIONS = ("shards", "namespace")
ALSO = "also"
"""Stands in the names of the workers of the second server."""


@dataclass(frozen=True, slots=True)
class AlsoServer:
    """The second server.

    Attributes:
        url: its URL.
        namespace: its namespace; None for that of the first one.
        shards: its number of shards; None for that of the first one.
    """

    url: str
    namespace: str | None = None
    shards: int | None = None

    @classmethod
    def of(cls, text: str) -> Self:
        """Makes it from the text of the option.

        Raises:
            CliError: what stands behind the # does not fit.

        >>> AlsoServer.of("redis://old:6379/0#shards=1,namespace=shop").shards
        1
        """
        url, _, behind = text.partition("#")
        given: dict[str, str] = {}
        for part in filter(None, behind.split(",")):
            name, sign, value = part.partition("=")
            if name not in _OPTIONS or not sign:
                raise _misfit(f"{part!r} is not known", "write URL, or URL#shards=1,namespace=shop")
            given[name] = value
        try:
            shards = config.count(given["shards"]) if "shards" in given else None
        except ValueError as error:
            raise _misfit(str(error), "write URL#shards=1") from error
        return cls(url, given.get("namespace"), shards)

    def setup(self, invocation: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what a worker of this server gets at its start, where it differs from the others.

        Args:
            invocation: the fields of the `Invocation` of the command.
            options: the fields of its `WorkerOptions`.
        """
        namespace = invocation["namespace"] if self.namespace is None else self.namespace
        return {
            "invocation": {**invocation, "url": self.url, "namespace": namespace},
            "options": {**options, "shards": self.shards, "server": 1},
        }


def _misfit(problem: str, hint: str) -> CliError:
    return CliError(f"--also-url: {problem}", hint, Code.USAGE)


def share(total: int, server: int, servers: int) -> int:
    """Returns how many of so many jobs a worker runs at the same time: each server gets a part, at least 1.

    Args:
        total: how many there are.
        server: the number of the server, from 0 on.
        servers: how many servers there are.

    >>> [share(5, server, 2) for server in (0, 1)]
    [3, 2]
    """
    part, rest = divmod(total, servers)
    return max(1, part + (server < rest))


def of_first(invocation: Invocation, also: AlsoServer) -> None:
    """Refuses a second server that is the first one.

    Raises:
        CliError: both have the same URL and the same namespace.
    """
    if also.url == invocation.url and also.namespace in (None, invocation.namespace):
        raise _misfit("that is the server of --url", "name the server from which you move")
