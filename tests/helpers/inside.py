"""What tests look at inside of a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncq import Worker
    from asyncq.slots import Slots
    from asyncq.worker.session import WorkerSession


def session_of(worker: Worker) -> WorkerSession:
    """The worker's session at this moment."""
    session = worker._session
    assert session is not None
    return session


def slots_of(worker: Worker) -> Slots:
    """The slots that its jobs run in."""
    return session_of(worker).held.slots
