"""Checks whether a server, or the way to it, may cost jobs or a password: no persistence, eviction, or a
password in plain text. Runs on the session's loop, when an app opens.

A finding is a warning in the log, or with the setting `strict` an error. `findings` judges and is pure;
`check` asks the server and reports.
"""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncq.broker.transport.pipe import PipeBroken
from asyncq.broker.transport.server_error import ServerError
from asyncq.errors import BrokerNotConfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncq.broker.commands import Commands
    from asyncq.broker.transport.connection import Address

log: logging.Logger = logging.getLogger(__name__)

QUESTION: tuple[str, ...] = ("CONFIG", "GET", "maxmemory", "maxmemory-policy", "save", "appendonly")
"""The command that asks the server for what `findings` judges."""
_looked_at: set[str] = set()
"""URLs of the servers that this process has checked: each warning is given once."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that may cost jobs or a password.

    Attributes:
        problem: what it is.
        mend: what to do.
        loses_accepted_jobs: whether a server that works as it is set up may throw jobs away.
    """

    problem: str
    mend: str
    loses_accepted_jobs: bool = False

    def __str__(self) -> str:
        return f"{self.problem}; {self.mend}"


def findings(address: Address, options: Mapping[str, str]) -> list[Finding]:
    """Returns what is wrong, the worst first.

    Args:
        address: where the server is and how one logs in.
        options: of the server, as CONFIG GET names them. A missing option gives no finding: managed servers
            do not show theirs, and an ACL may hide them.
    """
    judged = (_persistence(options), _eviction(options), _password(address))
    return [finding for finding in judged if finding is not None]


def _persistence(options: Mapping[str, str]) -> Finding | None:
    if options.get("appendonly") != "no" or options.get("save") != "":
        return None
    return Finding(
        "nothing is kept on disk (appendonly no, no save): when the server ends, all jobs are lost",
        "CONFIG SET appendonly yes, and the same in its configuration file",
    )


def _eviction(options: Mapping[str, str]) -> Finding | None:
    policy = options.get("maxmemory-policy", "noeviction")
    if policy == "noeviction" or options.get("maxmemory", "0") == "0":
        return None
    # Queues and jobs have no time to live, so a volatile policy does not evict them. Outcomes and tombstones
    # have one. Without its tombstone, an enqueue that is sent again would make a second job.
    victims = "outcomes" if policy.startswith("volatile-") else "queues and jobs"
    return Finding(
        f"maxmemory-policy {policy}: a full server throws {victims} away",
        "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file",
        loses_accepted_jobs=True,
    )


def _password(address: Address) -> Finding | None:
    # With Sentinels, the server is somewhere near them.
    near = (address,) if address.sentinels is None else address.sentinels.in_order()
    has_password = any(each.options.get("password") for each in (address, *near))
    if not address.is_plain_tcp or not has_password:
        return None  # TLS, a unix socket, or nothing to hide
    hosts = sorted({str(each.options.get("host", "localhost")) for each in near})
    host = next((host for host in hosts if not _is_loopback(host)), None)
    if host is None:
        return None
    return Finding(
        f"the password goes to {host} in plain text, and so does every job",
        "use rediss:// (TLS), or a tunnel that ends on this machine",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # any other name may mean another machine tomorrow


async def check(commands: Commands) -> None:
    """Checks the server that a session is connected to, or each node of a Cluster that has shards.

    Without `strict` the check costs no round trip. The question leaves with the next command, and findings
    are logged when the answer comes, once per process and server. With `strict` the check waits for the
    answer, each time.

    Raises:
        BrokerNotConfigured: with `strict`: the first line names the server, each other line a finding.
        BrokerUnavailable: with `strict`: no answer within the operation timeout.
    """
    if commands.settings.strict:
        await _refuse(commands)
        return
    address = commands.address
    if address.url not in _looked_at:
        _looked_at.add(address.url)
        for place, keys in commands.shard_of_each_server().items():
            commands.post(keys, QUESTION, partial(_warn, address, place))


async def _refuse(commands: Commands) -> None:
    """Asks each server, and raises if there are findings at one."""
    for place, keys in commands.shard_of_each_server().items():
        try:
            answer = await commands.send(keys, *QUESTION)
        except ServerError as error:
            answer = error
        found = findings(commands.address, options_in(answer))
        if found:
            lines = "\n".join(map(str, found))
            raise BrokerNotConfigured(f"{place} is not fit for jobs (strict):\n{lines}")


def _warn(address: Address, place: str, answer: Any) -> None:
    """Logs the findings in the answer of a server."""
    if isinstance(answer, PipeBroken):
        _looked_at.discard(address.url)  # the connection was lost before the answer: the next open asks again
        return
    for finding in findings(address, options_in(answer)):
        log.warning("%s: %s", place, finding)


def options_in(answer: Any) -> dict[str, str]:
    """Returns what CONFIG GET has answered; nothing if the server refused it (NOPERM) or does not know it."""
    if isinstance(answer, ServerError):
        log.debug("the server does not show its configuration: %s", answer)
        return {}
    return {name.decode(): value.decode() for name, value in answer.items()}
