"""`ENDS`: every way in which a job may end, with the status code of its outcome.

Each way is a function that takes `Steps` with a queued job "parent", and ends that job by the real scripts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.takeover import take

if TYPE_CHECKING:
    from asyncq import wire
    from helpers.steps import Steps


async def _signalled(steps: Steps) -> wire.Delivery:
    delivery = await steps.claim()
    assert await steps.broker.revoke("parent", signal="t", outcome=b"") == "signalled"
    return delivery


async def _died(steps: Steps, delivery: wire.Delivery) -> None:
    assert await take(steps.successor, delivery.stream, steps.worker.name, "1") == (0, 1, False)


async def _finish(steps: Steps, letter: str) -> None:
    await steps.end(await steps.claim(), b"", letter)


async def _dead_letter(steps: Steps) -> None:
    assert await steps.worker.claims.dead_letter(await steps.claim(), b"", "retries used up") == 1


async def _quarantine(steps: Steps) -> None:
    delivery = await steps.claim()
    await steps.worker.claims.quarantine(delivery.stream, delivery.entry, "rubbish", b"")


async def _retry(steps: Steps) -> None:
    assert await steps.worker.claims.retry(await _signalled(steps), 0, 1, b"") == 2


async def _release(steps: Steps) -> None:
    delivery = await _signalled(steps)
    assert await steps.worker.claims.release(delivery.stream, [(delivery.entry, "parent")]) == [2]


async def _replace(steps: Steps) -> None:
    assert await steps.worker.claims.replace(await _signalled(steps), [steps.job("parent")]) == 2


async def _take_signalled(steps: Steps) -> None:
    await _died(steps, await _signalled(steps))


async def _take_last(steps: Steps) -> None:
    await _died(steps, await steps.claim())


async def _revoke(steps: Steps) -> None:
    assert await steps.broker.revoke("parent", signal="c", outcome=b"") == "revoked"


async def _expire(steps: Steps) -> None:
    assert await steps.broker.expire("parent") == "revoked"


ENDS = {
    **{f"finish {letter}": (lambda steps, it=letter: _finish(steps, it), letter) for letter in "SFCE"},
    "dead_letter": (_dead_letter, "F"),
    "quarantine": (_quarantine, "F"),
    "retry of a signalled job": (_retry, "C"),
    "release of a signalled job": (_release, "C"),
    "replace of a signalled job": (_replace, "C"),
    "take of a signalled job": (_take_signalled, "C"),
    "take at the cap": (_take_last, "X"),
    "revoke": (_revoke, "C"),
    "expire": (_expire, "E"),
}
