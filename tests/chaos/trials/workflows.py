"""Workflows on workers that die. No job starts before its parents have ended or with another value than
theirs, and no job waits for ever.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq import chain, chord, group
from chaos import oracle
from chaos.stage import Stage, outcome_of

if TYPE_CHECKING:
    from random import Random

    from chaos.report import Report

WORKERS = 4
AT_ONCE = 1000
"""How many jobs are asked for their outcomes at a time."""


class Work(NamedTuple):
    """A workflow, and what must be true of its jobs.

    Attributes:
        workflow: what is sent.
        last: the number of its last job.
    """

    workflow: Any
    last: int
    parents: dict[int, list[int]]
    """For each job, the jobs whose values it must get, in this order."""


class Draft:
    """Makes workflows of jobs with consecutive numbers and bodies of random lengths.

    Args:
        tasks: of `chaos.jobs`.
        random: draws the lengths.
        first: the number of the first job.
    """

    def __init__(self, tasks: Any, random: Random, first: int = 0) -> None:
        self._tasks = tasks
        self._random = random
        self._numbers = itertools.count(first)

    def diamond(self) -> Work:
        top, left, right, bottom = (next(self._numbers) for _ in range(4))
        workflow = chain(self._first(top), group(self._then(left), self._then(right)), self._then(bottom))
        return Work(workflow, bottom, {top: [], left: [top], right: [top], bottom: [left, right]})

    def long_chain(self, length: int) -> Work:
        numbers = [next(self._numbers) for _ in range(length)]
        workflow = chain(self._first(numbers[0]), *(self._then(number) for number in numbers[1:]))
        before = {number: [number - 1] for number in numbers[1:]}
        return Work(workflow, numbers[-1], {numbers[0]: [], **before})

    def fan_in(self, width: int) -> Work:
        *header, body = (next(self._numbers) for _ in range(width + 1))
        workflow = chord([self._first(number) for number in header], self._then(body))
        return Work(workflow, body, {**{number: [] for number in header}, body: header})

    def replaced(self) -> Work:
        number, inner = next(self._numbers), next(self._numbers)
        call = self._tasks.becomes.s(number, inner, self._length()).set(task_id=f"job-{number}")
        return Work(call, number, {inner: [], number: [inner]})

    def _first(self, number: int) -> Any:
        return self._tasks.member.s(None, number, self._length()).set(task_id=f"job-{number}")

    def _then(self, number: int) -> Any:
        return self._tasks.member.s(number, self._length()).set(task_id=f"job-{number}")

    def _length(self) -> float:
        return round(self._random.uniform(0, 0.1), 3)


async def workflows(scale: float, seed: int, lease: float = 5.0) -> Report:
    """2,000 diamonds, 1,000 replaced jobs, 20 chains of 100, 5 fan-ins of 1,000; 4 workers, 20 kill -9."""
    # With so many deaths in so short a time, some jobs would reach `max_crashes`, and all jobs that wait for
    # them would end with them.
    async with Stage("workflows", scale=scale, seed=seed, lease=lease, max_crashes=1000) as stage:
        draft, kills = Draft(stage.tasks, stage.random), stage.count(20, least=4)
        works = mixed(stage, draft, replaced=1000)
        await stage.workers(WORKERS)
        started = time.monotonic()
        waits, _ = await asyncio.gather(
            send(stage, works, seconds=kills * 0.8), kill_random_workers(stage, kills)
        )
        await asyncio.gather(*waits)
        stage.report.fact("all ended after, s", round(time.monotonic() - started, 1))
        stage.report.fact("workflows / kills", f"{len(works)} / {kills}")
        await judge(stage, parents_of(works))
        return stage.report


def mixed(stage: Stage, draft: Draft, *, replaced: int) -> list[Work]:
    """Makes diamonds and replaced jobs in random order, long chains before them, and fan-ins among them."""
    works = [draft.diamond() for _ in range(stage.count(2000))]
    works += [draft.replaced() for _ in range(stage.count(replaced))]
    stage.random.shuffle(works)
    works[:0] = [draft.long_chain(stage.count(100, least=10)) for _ in range(stage.count(20))]
    for _ in range(stage.count(5)):
        works.insert(stage.random.randrange(len(works)), draft.fan_in(stage.count(1000, least=20)))
    return works


async def kill_random_workers(stage: Stage, kills: int) -> None:
    """Kills a random worker about every 0.8 s, and starts another one in its place."""
    for _ in range(kills):
        await asyncio.sleep(stage.random.uniform(0.4, 1.2))
        await stage.fleet.replace_random()


async def send(stage: Stage, works: list[Work], seconds: float) -> list[asyncio.Task[None]]:
    """Sends the workflows evenly over a time."""
    started, waits = time.monotonic(), []
    for index, work in enumerate(works):
        await asyncio.sleep(started + seconds * index / len(works) - time.monotonic())
        result = await work.workflow.delay()
        for number in work.parents:
            stage.journal.note(oracle.ACCEPTED, f"job-{number}", number)
        waits.append(asyncio.create_task(_wait(stage, work, result)))
    return waits


async def _wait(stage: Stage, work: Work, result: Any, timeout: float = 120.0) -> None:
    started = time.monotonic()
    kind, value, run = await outcome_of(result, timeout)
    overrun = time.monotonic() - started - timeout
    stage.journal.note(oracle.ANSWERED, f"job-{work.last}", kind, value, run, round(overrun, 3))


def parents_of(works: list[Work]) -> dict[int, list[int]]:
    """Returns the jobs of all workflows, each with the jobs that it waits for."""
    return {number: before for work in works for number, before in work.parents.items()}


async def judge(stage: Stage, parents: dict[int, list[int]]) -> None:
    """Reports the figures for jobs of workflows, and those for all jobs."""
    await _ask_all(stage, parents)
    journals = await stage.judge()
    stage.report.equal("jobs that never ran", len(parents) - len(journals.runs), 0)
    stage.report.equal("started too early, or with wrong values", len(journals.wrong_starts(parents)), 0)
    await stage.nothing_left()


async def _ask_all(stage: Stage, parents: dict[int, list[int]]) -> None:
    """Notes the outcome of every job, also of those for which nobody waited."""
    numbers = list(parents)
    for start in range(0, len(numbers), AT_ONCE):
        batch = [f"job-{number}" for number in numbers[start : start + AT_ONCE]]
        outcomes = await asyncio.gather(*(outcome_of(stage.app.AsyncResult(id_), 10.0) for id_ in batch))
        for id_, (kind, value, run) in zip(batch, outcomes, strict=True):
            stage.journal.note(oracle.ANSWERED, id_, kind, value, run, 0)
