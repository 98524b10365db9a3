"""Revocations that race with the claim, the run and the end of their jobs.

For each job, four sides are compared: the server's answer to the revocation, the waiter, the record, and what
the body noted in its journal. Some revocations must come in time and some too late.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos import oracle
from chaos.stage import Stage

if TYPE_CHECKING:
    from chaos.report import Report

KINDS = {"work": 40, "step": 35, "later": 15, "apart": 10}
"""How often each kind of job is made, in percent: `work` on the loop, `step` in a thread, `later` on the loop
after a delay, `apart` in a process.
"""
SIGNALS = ("SIGINT", "SIGTERM", "SIGKILL")
SHORTEST, LONGEST = 0.01, 1.0
"""The smallest and the largest value of the upper bound for the length of a body, in seconds."""
LONGER, SHORTER = 1.05, 0.9
"""The factors for that bound when a revocation came too late, and when it came in time. So about two in three
revocations come too late: on a fast machine, and on a busy one, too, where a call takes longer to arrive than
a body of 0.01 s takes to run."""
IN_FLIGHT = 100


@dataclass
class Outcome:
    """How one job ended, as each side learned it."""

    kind: str
    terminate: bool
    answer: str
    """The server's answer to the revocation."""
    revoked: str
    """What `revoke(wait=True)` returned."""
    waiter: str
    """The state that a waiter got which had waited from the beginning."""
    record: str = ""
    """The state that a client reads at the end, which knows only the id."""


class Race:
    """Enqueues jobs, and revokes each at about the time when it is claimed, runs or ends."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.outcomes: dict[str, Outcome] = {}
        self._mean_duration = {"work": 0.02, "step": 0.02, "later": 0.05, "apart": 0.3}
        self._longest = {"work": 0.01, "step": 0.01, "later": 0.01, "apart": 0.1}
        self._limit = asyncio.Semaphore(IN_FLIGHT)
        self._answers: dict[str, str] = {}
        self._record_answers()

    def _record_answers(self) -> None:
        """Wraps `Broker.revoke` to keep the server's answers. Callers do not see them."""
        broker = self.stage.app.sessions.current().broker
        ask = broker.revoke

        async def revoke(id: str, **options: Any) -> str:
            self._answers[id] = answer = await ask(id, **options)
            return answer

        broker.revoke = revoke

    async def run(self, number: int) -> None:
        async with self._limit:
            random = self.stage.random
            (kind,) = random.choices(list(KINDS), KINDS.values())
            await self._race(f"job-{number}", kind, number)

    async def _race(self, id: str, kind: str, number: int) -> None:
        random = self.stage.random
        terminate, signal = random.random() < 0.5, random.choice(SIGNALS)
        task = getattr(self.stage.tasks, "work" if kind == "later" else kind)
        countdown = random.uniform(0, 0.05) if kind == "later" else None
        began = time.monotonic()
        result = await task.options(task_id=id, countdown=countdown).delay(
            number, random.uniform(0, self._longest[kind])
        )
        waiter = asyncio.create_task(self._final_state(result, kind, began))
        # A random part of the time that jobs of this kind now take from the call to the end.
        await asyncio.sleep(random.uniform(0, self._mean_duration[kind]))
        handle = self.stage.app.AsyncResult(id)
        state = await handle.revoke(terminate=terminate, signal=signal, wait=True, timeout=60)
        answer = self._answers[id]
        longest = self._longest[kind] * (LONGER if answer == "ended" else SHORTER)
        self._longest[kind] = min(max(longest, SHORTEST), LONGEST)
        self.outcomes[id] = Outcome(kind, terminate, answer, str(state), await waiter)

    async def _final_state(self, result: Any, kind: str, began: float) -> str:
        outcome = await result.outcome(timeout=90)
        if outcome.state == "SUCCESS":
            self._mean_duration[kind] += 0.1 * (time.monotonic() - began - self._mean_duration[kind])
        return str(outcome.state)

    async def read_records(self) -> None:
        """Reads the state of each job from the server, as a client that knows only the id."""
        async with self.stage.make_app() as app:
            for id_, outcome in self.outcomes.items():
                outcome.record = str(await app.AsyncResult(id_).refresh())


def judge(report: Report, outcomes: dict[str, Outcome], journals: oracle.Journals) -> None:
    """Compares what each side learned with what the bodies noted."""
    runs = {id_: journals.runs.get(id_, []) for id_ in outcomes}

    def count(wrong: Any) -> int:
        return sum(bool(wrong(outcome, runs[id_])) for id_, outcome in outcomes.items())

    final = {"SUCCESS", "REVOKED"}
    report.equal(
        "waiter, caller and record disagree", count(lambda f, _: len({f.revoked, f.waiter, f.record}) > 1), 0
    )
    report.equal("neither ran nor revoked", count(lambda f, _: f.revoked not in final), 0)
    report.equal("started after the answer 'revoked'", count(lambda f, r: f.answer == "revoked" and r), 0)
    report.equal(
        "'revoked' and not REVOKED", count(lambda f, _: f.answer == "revoked" != f.record.lower()), 0
    )
    report.equal("both ran and revoked, not terminated", count(_both), 0)
    report.equal("SUCCESS without one whole run", count(_not_whole), 0)
    report.equal("started twice", count(lambda _, r: len(r) > 1), 0)
    answers = Counter(outcome.answer for outcome in outcomes.values())
    for answer in ("revoked", "signalled", "ended"):
        # The shares of the answers depend on the speed of the machine; each answer must occur.
        report.above(f"answered {answer!r}", answers[answer] / len(outcomes), 0.001)
    cut = count(lambda f, r: f.revoked == "REVOKED" and r and r[0].ended is None)
    report.above("cancelled while running", cut / len(outcomes), 0.001)
    killed = count(lambda f, r: f.kind == "apart" and f.revoked == "REVOKED" and r)
    report.fact("of these, in processes", killed)


def _both(outcome: Outcome, runs: list[oracle.Run]) -> bool:
    return not outcome.terminate and outcome.revoked == "REVOKED" and bool(runs)


def _not_whole(outcome: Outcome, runs: list[oracle.Run]) -> bool:
    return outcome.revoked == "SUCCESS" and (len(runs) != 1 or runs[0].ended is None)


async def race(scale: float, seed: int, lease: float = 5.0) -> Report:
    """10,000 jobs, each revoked at a random time around its claim, its run and its end, on 2 workers."""
    settings = {"scale": scale, "seed": seed, "lease": lease, "processes": 2}
    async with Stage("revocation race", concurrency=16, **settings) as stage:
        total = stage.count(10_000)
        await stage.workers(2)
        await asyncio.gather(*(stage.tasks.apart.call(n) for n in range(8)))  # the processes are warm
        racing = Race(stage)
        await asyncio.gather(*(racing.run(number) for number in range(total)))
        await racing.read_records()
        stage.report.fact("jobs", len(racing.outcomes))
        stage.fleet.note_unexpected_exits()
        stage.report.equal("workers that ended by themselves", stage.fleet.unexpected_exits, [])
        await stage.nothing_left()  # first, because this ends the workers, and bodies in threads with them
        judge(stage.report, racing.outcomes, oracle.Journals.read(stage.folder))
        return stage.report
