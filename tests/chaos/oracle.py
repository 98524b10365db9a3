"""The journals of a trial, and the judge that reads them.

Each process notes in a file of its own, outside of Redis, which jobs were accepted, started, ended and
answered. After the trial, `Journals` reads all files and finds what must not happen: lost jobs, wrong values,
extra runs.

A line is one `write` to a file that no other process writes to. So a line is whole, and stays when its writer
is killed right after it. Times are CLOCK_MONOTONIC, which all processes of one machine share.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ACCEPTED, STARTED, ENDED, ANSWERED = "A", "B", "E", "G"
DYING = 0.5
"""Seconds that a signal may take to stop or kill its process, and SIGCONT to let the process go on.
"""
STORING = 5.0
"""Seconds that a worker may need to store an outcome: the server may be down, or the machine busy."""


def expected(number: int) -> int:
    """Returns the value that the job of a number must have."""
    return number * 7 + 1


class Journal:
    """The file of one process."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / f"{os.getpid()}.journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, kind: str, id: str, *words: object) -> None:
        os.write(self._file, f"{kind} {time.monotonic():.4f} {id} {' '.join(map(str, words))}\n".encode())

    def close(self) -> None:
        os.close(self._file)


@dataclass(slots=True)
class Run:
    """One run of a body."""

    name: str
    number: int
    attempt: int
    pid: int
    started: float
    parent_values: str
    """The values of its parents, each with the name of the run that returned it."""
    ended: float | None = None


@dataclass(slots=True)
class Answer:
    """How one wait for a job ended.

    Attributes:
        kind: `ok`, or the name of an error.
        value, run: of the job, see `chaos.jobs`.
        late: by how many seconds the wait overran its timeout; negative if it ended in time.
        when: the time of the answer.
    """

    kind: str
    value: int
    run: str
    late: float
    when: float


@dataclass
class Journals:
    """All journals of a folder, read together.

    Attributes:
        accepted: by id, the numbers of the jobs that were accepted.
        runs: by id, the runs of each job.
        answers: by id, the answers that the waiters of each job got.
    """

    accepted: dict[str, int] = field(default_factory=dict)
    runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    answers: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def read(cls, folder: Path) -> Journals:
        journals = cls()
        for file in sorted(folder.glob("*.journal")):
            journals._read_file(file)
        return journals

    def _read_file(self, file: Path) -> None:
        pid = int(file.stem)
        open_runs: dict[str, Run] = {}
        for line in file.read_text().splitlines():
            kind, when, id_, *words = line.split(" ")
            if kind == ACCEPTED:
                self.accepted[id_] = int(words[0])
            elif kind == STARTED:
                run = Run(words[0], int(words[1]), int(words[2]), pid, float(when), words[3])
                open_runs[run.name] = run
                self.runs[id_].append(run)
            elif kind == ENDED:
                open_runs[words[0]].ended = float(when)
            elif kind == ANSWERED:
                self.answers[id_].append(
                    Answer(words[0], int(words[1]), words[2], float(words[3]), float(when))
                )

    # -- judgement --

    def extra_runs(self) -> int:
        return sum(len(runs) - 1 for runs in self.runs.values())

    def unexplained_runs(
        self, losses: Sequence[tuple[int, float]], resumptions: Sequence[tuple[int, float]] = ()
    ) -> list[str]:
        """Returns the extra runs that no loss of a process explains, each as a text.

        A job may run again if a process that had started it was lost before the outcome was surely stored.
        Also, a process may have been stopped after it checked the lease and before the body's first line.
        When such a process resumes, that one body starts: one for each time that a process resumes.

        Args:
            losses: each process that was killed or stopped past its lease, and when.
            resumptions: each process that resumed after it was stopped, and when.
        """
        excused = {run.name for pid, when in losses for run in self.in_flight(pid, when)}
        late = list(resumptions)
        found = []
        for id_, runs in self.runs.items():
            in_order = sorted(runs, key=lambda run: run.started)
            for number, (before, run) in enumerate(pairwise(in_order), 1):
                if any(earlier.name in excused for earlier in in_order[:number]):
                    continue
                resumption = next(
                    (one for one in late if one[0] == run.pid and 0 <= run.started - one[1] <= DYING), None
                )
                if resumption is None:
                    found.append(f"{id_}: {before} ran again as {run}")
                else:
                    late.remove(resumption)
        return found

    def in_flight(self, pid: int, when: float) -> list[Run]:
        """Returns the runs of a process whose outcomes may not have been stored at a time: the body had
        started and not ended, or it had ended and no waiter had got the outcome.

        A body that started within `DYING` after that time counts, because a signal takes its time. A body
        that ended more than `STORING` before that time does not count, whether or not somebody waited for it.
        """
        given = {answer.run: answer.when for answers in self.answers.values() for answer in answers}
        return [
            run
            for runs in self.runs.values()
            for run in runs
            if run.pid == pid
            and run.started <= when + DYING
            and (run.ended is None or run.ended >= when - STORING)
            and given.get(run.name, when) >= when
        ]

    def never_answered(self) -> list[str]:
        """Returns the accepted jobs whose waiters got no outcome, but nothing, a timeout, or an error of the
        connection.
        """
        good = {"ok", "WorkerLost"}
        return [
            id_
            for id_ in self.accepted
            if not any(answer.kind in good for answer in self.answers.get(id_, ()))
        ]

    def late(self, slack: float) -> list[float]:
        """Returns by how many seconds waits overran their timeouts, if by more than `slack`."""
        return [a.late for answers in self.answers.values() for a in answers if a.late > slack]

    def wrong(self) -> list[str]:
        """Returns the jobs whose waiters got another value than the job's own."""
        return [
            id_
            for id_, answers in self.answers.items()
            for answer in answers
            if answer.kind == "ok" and answer.value != expected(self.accepted[id_])
        ]

    def duplicated_jobs(self) -> list[int]:
        """Returns the numbers that ran under more than one id: one enqueue became two jobs."""
        ids: dict[int, set[str]] = defaultdict(set)
        for id_, runs in self.runs.items():
            for run in runs:
                ids[run.number].add(id_)
        return [number for number, found in ids.items() if len(found) > 1]

    def dead_lettered_too_early(self, max_crashes: int = 3) -> list[str]:
        """Returns the jobs that ended as `WorkerLost` although too few of their runs started. The first death
        of a worker counts also for a job that the worker held and had not started, so one run may be missing.
        """
        return [
            id_
            for id_, answers in self.answers.items()
            if any(answer.kind == "WorkerLost" for answer in answers)
            and len(self.runs[id_]) < max_crashes - 1
        ]

    def wrong_starts(self, parents: Mapping[int, Sequence[int]]) -> list[str]:
        """Returns the runs that started before all parents of the job had succeeded, or that did not get
        exactly the stored values of the parents, in order.
        """
        every = {run.name: run for runs in self.runs.values() for run in runs}
        succeeded = {
            self.accepted[id_]: every.get(answers[0].run)
            for id_, answers in self.answers.items()
            if answers[0].kind == "ok"
        }
        return [
            run.name
            for run in every.values()
            if not _started_rightly(run, [succeeded.get(parent) for parent in parents[run.number]])
        ]

    def strange_starts(self, parents: Mapping[int, Sequence[int]]) -> list[str]:
        """Returns the runs that started with a value which no run of that parent had returned by then. Where
        the server may lose outcomes, this holds also for a parent that ran again.
        """
        every = {run.name: run for runs in self.runs.values() for run in runs}

        def is_right(value: str, parent: int, child: Run) -> bool:
            number, _, name = value.partition(":")
            run = every.get(name)
            if run is None or run.number != parent or number != str(expected(parent)):
                return False
            return run.ended is not None and run.ended <= child.started

        found = []
        for run in every.values():
            before = parents.get(run.number, ())
            values = [] if run.parent_values == "-" else run.parent_values.split(",")
            if len(values) != len(before) or not all(
                is_right(value, parent, run) for value, parent in zip(values, before, strict=True)
            ):
                found.append(run.name)
        return found

    def answer_kinds(self) -> Counter[str]:
        return Counter(answer.kind for answers in self.answers.values() for answer in answers)

    def contradicted(self, stored: dict[str, tuple[str, int, str]]) -> list[str]:
        """Returns the jobs whose stored outcome is not the one that a waiter got: a second outcome was
        written.
        """
        return [
            id_
            for id_, answers in self.answers.items()
            for a in answers
            if a.kind in {"ok", "WorkerLost"} and id_ in stored and (a.kind, a.value, a.run) != stored[id_]
        ]


def _started_rightly(run: Run, before: Sequence[Run | None]) -> bool:
    """Returns whether a run started after all of its parents had ended, and got their values."""
    parent_values = []
    for parent in before:
        if parent is None or parent.ended is None or parent.ended > run.started:
            return False
        parent_values.append(f"{expected(parent.number)}:{parent.name}")
    return run.parent_values == (",".join(parent_values) or "-")
