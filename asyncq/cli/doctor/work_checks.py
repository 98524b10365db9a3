"""Looks of `asyncq doctor` at the work that lies at the server: queues, workers, tasks, and dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq import __version__
from asyncq.cli.doctor.diagnosis import error, good, warning
from asyncq.config import shown
from asyncq.control import queues as control_queues, workers as control_workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncq.app import AsyncQ
    from asyncq.cli.doctor.diagnosis import Diagnosis
    from asyncq.control.queues import QueueInfo
    from asyncq.control.workers import WorkerInfo

LONG_WAIT = 60.0
"""Seconds that the oldest job of a served queue has waited from which on the workers are behind."""
PING_TIMEOUT = 1.0


async def look(app: AsyncQ, target: str) -> list[Diagnosis]:
    """Looks at the work of an app that is open.

    Args:
        app: the app.
        target: what `asyncq worker` would be started with.
    """
    broker = app.sessions.current().broker
    registered = await broker.workers.all()
    queues = await control_queues.infos(broker, workers=registered)
    answers = await control_workers.ping(broker, PING_TIMEOUT, registered)
    stats = await app.control.stats()
    found = [
        *await _signatures(app),
        *_workers([control_workers.info_of(worker) for worker in registered], set(answers), target),
        *(each for queue in queues for each in _queue(queue, target)),
        *await _schedules(app, [worker.session_id for worker in registered], target),
    ]
    if stats.dead:
        found.append(
            warning(
                "dead letters",
                f"there are {stats.dead:,} dead letters",
                "asyncq dlq ls, asyncq dlq requeue ID",
            )
        )
    if not any(each.grade != "ok" for each in found):
        waiting = sum(queue.waiting for queue in queues)
        found.append(good("queues", f"{len(queues)} queues are served, {waiting:,} jobs wait"))
    return found


async def _signatures(app: AsyncQ) -> list[Diagnosis]:
    """Looks at whether messages are signed, and whether the workers work together with this process."""
    broker = app.sessions.current().broker
    seal = broker.commands.seal
    others, refusing = await broker.workers.strangers()
    found = []
    if seal is None:
        found.append(
            good("signatures", "messages are not signed: whoever may write at the server can run tasks")
        )
        text, fix = "signs its messages, and this app has no secrets", "set ASYNCQ_SECRETS for this app, too"
    else:
        more = f", and {', '.join(seal.names[1:])} accepted" if seal.names[1:] else ""
        how = "signed and encrypted" if app.settings.encrypt else "signed, and not encrypted"
        found.append(good("signatures", f"messages are {how}; secret {seal.names[0]} signs{more}"))
        text, fix = "has no secrets: it refuses jobs of this app", "set ASYNCQ_SECRETS for it, too"
    found += [error("signatures", f"worker {name!r} {text}", fix) for name in others]
    found += [
        error(
            "signatures",
            f"worker {name!r} does not accept the secret with which this app signs",
            "add the secret behind those of the worker, and put it first everywhere only then",
        )
        for name in refusing
    ]
    return found


def _workers(workers: list[WorkerInfo], answered: set[str], target: str) -> Iterator[Diagnosis]:
    if not workers:
        yield warning("workers", "there is no worker", f"asyncq worker {target}")
        return
    for worker in workers:
        name = worker.name
        if not any(each == name or each.startswith(f"{name}-") for each in answered):
            yield error(
                "workers",
                f"worker {name!r} does not answer: it has died, or a task blocks its event loop",
                f"asyncq workers stacks {name}; its log names the task (stall_warning)",
            )
        if worker.quiet:
            yield warning(
                "workers", f"worker {name!r} is quiet and takes no jobs", f"asyncq workers quiet {name} --off"
            )
        if worker.version not in ("", __version__):
            yield warning(
                "workers",
                f"worker {name!r} has asyncq {worker.version}, and this is {__version__}",
                "a rolling upgrade goes through that; otherwise install one version everywhere",
            )
    yield good("workers", f"{len(workers)} registered, {sum(worker.busy for worker in workers)} jobs run")


async def _schedules(app: AsyncQ, sessions: list[str], target: str) -> list[Diagnosis]:
    """Looks whether there is a worker for each schedule, and one that knows its task."""
    schedules = await app.schedules.list()
    if not schedules:
        return []
    if not sessions:
        text = f"{len(schedules)} schedules, and no worker makes their jobs"
        return [error("schedules", text, f"asyncq worker {target}")]
    tasks = sorted({schedule.task for schedule in schedules if not schedule.paused})
    announced = await app.sessions.current().broker.workers.announced(
        sessions, *(f"t{task}" for task in tasks)
    )
    known = {
        task for fields in announced for task, field in zip(tasks, fields, strict=True) if field is not None
    }
    found = [
        error(
            "schedules",
            f"no worker knows task {schedule.task!r} of schedule {schedule.name!r}: its jobs fail",
            "start a worker with that task, or remove the schedule: asyncq schedule rm " + schedule.name,
        )
        for schedule in schedules
        if not schedule.paused and schedule.task not in known
    ]
    return found or [good("schedules", f"there are {len(schedules)}, and workers know their tasks")]


def _queue(queue: QueueInfo, target: str) -> Iterator[Diagnosis]:
    name, waits = queue.name, f"queue {queue.name!r} has {queue.waiting:,} jobs"
    if not queue.waiting:
        return
    if queue.paused:
        yield warning("queues", f"{waits} and is paused", f"asyncq queues resume {name}")
    elif not queue.consumers:
        yield error("queues", f"{waits} and no worker serves it", f"asyncq worker {target} {name}")
    elif queue.oldest_wait > LONG_WAIT:
        yield warning(
            "queues",
            f"{waits}, the oldest for {shown(queue.oldest_wait)}: the workers are behind",
            "run more workers, or give the urgent jobs a queue of their own",
        )
