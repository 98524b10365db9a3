"""Finds the jobs that ids of a command line name. An id may be abbreviated to the beginning of it, if that
fits one job only. `@last` is the last job that was enqueued from this terminal, see `last_job`.

There is no index of ids, so an abbreviation is looked for among the jobs that `app.control.jobs` lists, and
among the dead letters. That look is bounded; what it has not seen, it says.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from asyncq.cli import console, last_job
from asyncq.cli.exits import CliError, Code
from asyncq.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncq.app import AsyncQ

MOST_LOOKED_AT = 5_000
"""So many jobs of each state are looked at, and so many dead letters: some ten thousand in all."""
_PAGE = 1000
_LONGEST = 24
"""An id that asyncq makes has as many digits: what is as long is no abbreviation."""
_MOST_SHOWN = 10
_STATES = (
    *(State.STARTED, State.PENDING, State.SCHEDULED, State.RETRY),
    *(State.FAILURE, State.REVOKED, State.SUCCESS),
)


class Seen(NamedTuple):
    """The ids of some jobs.

    Attributes:
        ids: of those that were looked at.
        are_all: whether there are no others that could be listed.
    """

    ids: set[str]
    are_all: bool


async def full(app: AsyncQ, id_: str, *, surely: bool = False) -> str:
    """Returns the id of the one job that an id, or the beginning of one, names. See `all_full`."""
    return (await all_full(app, [id_], surely=surely))[0]


async def all_full(app: AsyncQ, ids: Sequence[str], *, surely: bool = False) -> list[str]:
    """Returns the ids of jobs. An id that fits none stays as it is. `@last` is the last job of this terminal.

    Args:
        app: the app, which is open.
        ids: ids, or beginnings of ids.
        surely: whether a beginning is refused if there are jobs that nobody has looked at: for commands that
            end or change something.

    Raises:
        CliError: the beginning of an id fits several jobs, or may do so, or there is no last job.
        BrokerUnavailable: no answer within the operation timeout.
    """
    ids = [last_job.read() if id_ == last_job.LAST else id_ for id_ in ids]
    broker = app.sessions.current().broker
    short = [id_ for id_ in dict.fromkeys(ids) if len(id_) < _LONGEST]
    records = await asyncio.gather(*map(broker.record, short))
    unknown = [id_ for id_, record in zip(short, records, strict=True) if record is None]
    if not unknown:
        return list(ids)
    seen = await _seen(app)
    found = {id_: one_of(id_, seen, "job", surely=surely) for id_ in unknown}
    return [found.get(id_, id_) for id_ in ids]


def one_of(id_: str, seen: Seen, what: str, *, surely: bool) -> str:
    """Returns the only one of the ids that begins with a text; the text itself if there is none.

    Raises:
        CliError: there are several, or, with `surely`, there may be.
    """
    if id_ in seen.ids:
        return id_
    fitting = sorted(other for other in seen.ids if other.startswith(id_))
    if not fitting:
        return id_
    if len(fitting) > 1:
        more = "" if len(fitting) <= _MOST_SHOWN else f" and {len(fitting) - _MOST_SHOWN} more"
        names = ", ".join(fitting[:_MOST_SHOWN])
        raise CliError(f"{id_!r} could be any of {names}{more}", "write more of the id", Code.USAGE)
    if not seen.are_all:
        count = f"{len(seen.ids):,} {what}s"
        if surely:
            raise CliError(
                f"{id_!r} fits {fitting[0]}, and there are more than the {count} that were looked at",
                "write the whole id",
                Code.USAGE,
            )
        console.say(f"{id_} is taken for {fitting[0]}, the only one among the {count} that were looked at")
    return fitting[0]


async def _seen(app: AsyncQ) -> Seen:
    """Looks at jobs of each state, and at the jobs of dead letters."""
    parts = await asyncio.gather(*(_in_state(app, state) for state in _STATES))
    letters = await app.control.dead.list(MOST_LOOKED_AT)
    ids = {letter.job_id for letter in letters if letter.job_id}.union(*(part.ids for part in parts))
    return Seen(ids, len(letters) < MOST_LOOKED_AT and all(part.are_all for part in parts))


async def _in_state(app: AsyncQ, state: State) -> Seen:
    ids: set[str] = set()
    cursor, looked_at = None, 0
    while looked_at < MOST_LOOKED_AT:
        page = await app.control.jobs(state, limit=_PAGE, cursor=cursor)
        ids.update(job.id for job in page)
        looked_at += page.looked_at
        if (cursor := page.cursor) is None:
            return Seen(ids, are_all=True)
    return Seen(ids, are_all=False)


def letters_of(ids: Iterable[str]) -> Seen:
    """Returns the ids of dead letters as what was seen: all of them are listed."""
    return Seen(set(ids), are_all=True)
