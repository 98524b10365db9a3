"""Jobs of tasks that this worker does not know: says how long they are deferred, and when they fail.

Another worker may know the task: while new code is rolled out, or where two services share a queue. Such a
job is deferred, with longer and longer pauses, until a worker that knows its task takes it. It fails once no
worker that serves its queue has known the task for `unknown_task_wait`. The job itself carries how long that
is, so any number of workers may defer it. Runs on the worker's loop.
"""

from __future__ import annotations

import logging
import random
import re
from typing import TYPE_CHECKING, NamedTuple

from asyncq.config import shown
from asyncq.short_repr import brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq import wire
    from asyncq.broker.consumer import Consumer

log: logging.Logger = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 100, 2000
"""Milliseconds that a job is deferred the first time at most, and at most ever. This bound doubles each time;
the pause is chosen at random up to the bound."""
ASK_AGAIN = 1.0
"""Seconds after which the server is asked again whether any worker knows a task."""
MOST_NAMES = 10_000
"""So many task names are remembered; then all are forgotten. Anybody can send jobs with new names."""

_CARRIED = re.compile(rb"(\d{1,9}) (\d{1,12})")


class PutOff(NamedTuple):
    """How a job is deferred.

    Attributes:
        wait: how long, in ms.
        so_far: what the job carries until the next time, see `UnknownTasks.put_off`.
    """

    wait: int
    so_far: bytes


class UnknownTasks:
    """Says how long jobs of unknown tasks are deferred.

    Args:
        consumer: asks the server which workers know a task.
        now: the clock of the loop, in seconds.
    """

    def __init__(self, consumer: Consumer, now: Callable[[], float]) -> None:
        self._consumer = consumer
        self._now = now
        self._timeout = round(consumer.settings.unknown_task_wait * 1000)
        # By queue and task: when the server was asked, and whether a worker knew the task.
        self._answers: dict[tuple[str, str], tuple[float, bool]] = {}

    async def put_off(self, delivery: wire.Delivery) -> PutOff | None:
        """Returns how a job is deferred, or None if no worker has known its task for so long that it fails.

        The job carries `<times> <ms>`: how often it was deferred, and for how long no worker has known its
        task. The pauses are added up, so no clocks are compared.
        """
        if not self._timeout:
            return None
        carried = _CARRIED.fullmatch(delivery.put_off)
        count, unknown = (int(carried[1]), int(carried[2])) if carried else (0, 0)
        if await self._is_known(delivery):
            unknown = 0
        elif unknown >= self._timeout:
            return None
        wait = min(LONGEST_WAIT, FIRST_WAIT << min(count, 10))
        # Full jitter: any pause up to the bound. The server gives a job to the worker that has waited
        # longest, and then puts that worker last. With two jobs that go to the wrong workers, this order
        # repeats itself for as long as the jobs come back alternately. With pauses between half of the bound
        # and the bound, one of 100 such pairs took 19 s; with full jitter, 2.5 s.
        wait = min(random.randint(1, wait), max(1, self._timeout - unknown))
        return PutOff(wait, b"%d %d" % (count + 1, unknown + wait))

    async def _is_known(self, delivery: wire.Delivery) -> bool:
        """Whether any worker of the queue knows the task. Asks the server at most once a second per task."""
        job = delivery.job
        key = (job.queue, job.name)
        asked, answer = self._answers.get(key, (float("-inf"), False))
        if self._now() - asked < ASK_AGAIN:
            return answer
        is_new = key not in self._answers
        if is_new and len(self._answers) >= MOST_NAMES:
            self._answers.clear()
        # Stored before the answer is here: of a thousand such jobs that come at once, only one asks.
        self._answers[key] = (self._now(), True)
        answer = await self._consumer.announcements.is_task_known(delivery, job.name.removesuffix("*"))
        self._answers[key] = (self._now(), answer)
        if is_new:
            self._warn(delivery, is_known=answer)
        return answer

    def _warn(self, delivery: wire.Delivery, *, is_known: bool) -> None:
        job = delivery.job
        others = (
            "another worker of the queue knows it" if is_known else "so far no worker of the queue knows it"
        )
        log.warning(
            "this worker does not know the task %s of job %r (queue %r), and %s. Jobs of this task are "
            "deferred until a worker that knows the task takes them. They fail when no worker has known the "
            "task for unknown_task_wait=%s. This warning is logged once per task. If no deployment is under "
            "way, import the task's module where the app is made, or give each service a queue or a "
            "namespace of its own",
            *(brief(job.name), job.id, job.queue, others, shown(self._timeout / 1000)),
        )
