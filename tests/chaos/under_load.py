"""What trials share in which another server takes over under load: the load, the way back to service, and the
judgement of what may be lost.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from helpers.stopwatch import Stopwatch

from asyncq import BrokerUnavailable, QueueFull
from chaos import oracle
from chaos.stage import outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chaos.stage import Stage
    from chaos.trials.workflows import Draft

BACK_WITHIN = 1.0
"""Seconds after the servers agree on a new one, within which calls must be answered again."""
ANSWERED_WITHIN = 12.0
"""Seconds after that, within which everybody who waited then must have an answer."""
NOT_FOUND = "other:ResultNotFound"


async def calls_at_a_rate(stage: Stage, stop: asyncio.Event, rate: float) -> None:
    """Starts calls at a rate, until `stop`."""
    done = await _at_a_rate(
        stop, rate, lambda number: stage.begin(number, stage.random.uniform(0, 0.1), timeout=60)
    )
    stage.report.fact("jobs offered", done)


async def diamonds_at_a_rate(
    stage: Stage, stop: asyncio.Event, rate: float, draft: Draft
) -> dict[int, list[int]]:
    """Sends workflows at a rate, until `stop`, and waits for them in the background. Returns the jobs of all
    of them, each with the jobs that it waits for.
    """
    parents: dict[int, list[int]] = {}

    def begin(_: int) -> None:
        work = draft.diamond()
        parents.update(work.parents)
        stage.background(_one_workflow(stage, work))

    done = await _at_a_rate(stop, rate, begin)
    stage.report.fact("workflows offered", done)
    return parents


async def _at_a_rate(stop: asyncio.Event, rate: float, begin: Callable[[int], Any]) -> int:
    started, done = time.monotonic(), 0
    while not stop.is_set():
        due = int((time.monotonic() - started) * rate) + 1
        for number in range(done, due):
            begin(number)
        done = due
        await asyncio.sleep(0.01)
    return done


async def _one_workflow(stage: Stage, work: Any, timeout: float = 60.0) -> None:
    try:
        result = await work.workflow.delay()
    except (BrokerUnavailable, QueueFull):
        return  # it may have been accepted or not: nobody is promised anything
    for number in work.parents:
        stage.journal.note(oracle.ACCEPTED, f"job-{number}", number)
    started = time.monotonic()
    kind, value, run = await outcome_of(result, timeout)
    overrun = time.monotonic() - started - timeout
    stage.journal.note(oracle.ANSWERED, f"job-{work.last}", kind, value, run, round(overrun, 3))


async def service_is_back(stage: Stage, way: str, probes: Iterable[int]) -> None:
    """Measures when calls are answered again and when all waits have ended. To be called at the moment when
    the servers accept writes again.

    Args:
        stage: of the trial.
        way: what happened, for the report.
        probes: the numbers of the calls that must be answered.
    """
    since_accepting = Stopwatch()
    waiting = stage.waiting()
    await asyncio.gather(*(stage.call(number, timeout=30) for number in probes))
    stage.report.below(f"{way}: next call ended after", since_accepting.took, BACK_WITHIN, " s")
    late = (await asyncio.wait(waiting, timeout=ANSWERED_WITHIN + 5.0))[1] if waiting else set()
    stage.report.below(
        f"{way}: all {len(waiting)} waits ended after", since_accepting.took, ANSWERED_WITHIN, " s"
    )
    stage.report.equal(f"{way}: waits that did not end", len(late), 0)


def not_found(stage: Stage) -> int:
    """Returns how many waiters have been told that their job does not exist."""
    return oracle.Journals.read(stage.folder).answer_kinds().get(NOT_FOUND, 0)


async def judge_losses(stage: Stage, parents: dict[int, list[int]]) -> None:
    """Reports what was lost, and the figures that every trial must keep in which jobs may be lost.

    Args:
        stage: of the trial.
        parents: the jobs of all workflows, each with the jobs that it waits for.
    """
    journals = oracle.Journals.read(stage.folder)
    ends = await stage.ends(list(journals.accepted))
    stored = {id_: end for id_, end in ends.items() if end[0] in {"ok", "WorkerLost"}}
    report = stage.report
    kinds = journals.answer_kinds()
    report.fact("jobs accepted", len(journals.accepted))
    report.fact("waiters that got ResultNotFound", kinds.get(NOT_FOUND, 0))
    report.fact("jobs of which the server has no outcome at the end", len(journals.accepted) - len(stored))
    report.fact("extra runs", journals.extra_runs())
    report.fact("outcomes that were lost after their waiter had them", len(journals.contradicted(stored)))
    report.equal("other answers", sorted(set(kinds) - {"ok", NOT_FOUND}), [])
    report.equal("wrong values", len(journals.wrong()), 0)
    report.equal("enqueues that made two jobs", len(journals.duplicated_jobs()), 0)
    waited_for = [id_ for id_, number in journals.accepted.items() if number not in parents] + [
        f"job-{number}" for number in _lasts(parents) if f"job-{number}" in journals.accepted
    ]
    report.equal("waits that did not end", sum(id_ not in journals.answers for id_ in waited_for), 0)
    report.equal("waits that ended later than timeout + 1 s", len(journals.late(1.0)), 0)
    open_jobs = [id_ for id_, end in ends.items() if end[0] not in {"ok", "WorkerLost", NOT_FOUND}]
    report.equal("jobs that neither ended nor are gone", open_jobs[:5], [])
    if parents:
        report.equal("started with a value that no parent returned", journals.strange_starts(parents), [])
    stage.fleet.note_unexpected_exits()
    report.equal("workers that ended by themselves", stage.fleet.unexpected_exits, [])


def _lasts(parents: dict[int, list[int]]) -> set[int]:
    """Returns the last job of each workflow: no other job waits for it."""
    return parents.keys() - {parent for before in parents.values() for parent in before}
