"""Applies revocation signals: requests to end a job that runs in this worker, or not to run it again.

Each signal comes in two ways: as a message on the session's channel, and with the answer to every heartbeat
until the job has ended. So a lost message is repeated, and a signal may come any number of times. All of it
runs on the worker's loop; the thread of the heartbeat passes its signals there.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from asyncq import wire
from asyncq.broker.limiter import PERMIT_GRANTED
from asyncq.broker.order_messages import SIGN
from asyncq.broker.schema import damaged_data
from asyncq.broker.transport.background import ErrorLog

if TYPE_CHECKING:
    from asyncq.broker.signing.seal import Seal
    from asyncq.worker.held_jobs import HeldJobs
    from asyncq.worker.permits import Limiter

log: logging.Logger = logging.getLogger(__name__)


class RevocationSignals:
    """Passes each signal on to the job that it is for.

    Args:
        held: the jobs of the session.
        limiter: gets the permits, which come on the same channel.
        seal: of the session.
    """

    def __init__(self, held: HeldJobs, limiter: Limiter, seal: Seal | None = None) -> None:
        self._held = held
        self._seal = seal
        self._limiter = limiter
        self._errors = ErrorLog(log, "a revocation signal could not be applied; it will be sent again")

    def on_message(self, data: bytes) -> None:
        """Handles a message on the session's channel: a signal, or a permit for a job that waits for one. The
        orders of operators come there, too, and are for `Orders`.
        """
        if data.startswith(SIGN):
            return
        text = data.decode("utf-8", "replace")
        if text[:1] == PERMIT_GRANTED:
            self._limiter.grant(text[1:])
        else:
            self.apply([text])

    def apply(self, signals: list[str]) -> None:
        """Applies signals. `c<id>` means that the job is not to start (again), each other letter that it is
        to end now. A reason may follow the id.
        """
        for signal in signals:
            try:
                self._apply(signal)
            except Exception as error:  # noqa: BLE001  one signal must not keep the others from their jobs
                self._errors.add(error)

    def _apply(self, signal: str) -> None:
        """Applies one signal to all held jobs with its id, with its reason if it has one."""
        id_, _, reason = signal[1:].partition(" ")
        if signal[:1] not in wire.SIGNALS or not id_:
            damaged_data.warn(
                log, "revocation signal", "a revocation signal could not be read", repr(signal[:200])
            )
            return
        jobs = list(self._held.with_id(id_))
        if reason and jobs and self._seal is not None:
            reason = self._seal.opened_reason(id_, reason)
        for job in jobs:
            if reason:
                self._held.reasons[job.delivery.entry, id_] = reason
            job.signal(signal[0])
