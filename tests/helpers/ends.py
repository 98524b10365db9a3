"""`ENDS`: every way in which a job may end, with the status code of its outcome.

Each way is a function that takes `Steps` with a queued job "parent", and ends that job by the real scripts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.takeover import take

if TYPE_CHECKING:
    from asyncq import wire
    from helpers.steps import Steps


async def _signalled(stage: Steps) -> wire.Delivery:
    delivery = await stage.claim()
    assert await stage.broker.revoke("parent", signal="t", outcome=b"") == "signalled"
    return delivery


async def _died(stage: Steps, delivery: wire.Delivery) -> None:
    assert await take(stage.heir, delivery.stream, stage.worker.name, "1") == (0, 1, False)


async def _finish(stage: Steps, letter: str) -> None:
    await stage.end(await stage.claim(), b"", letter)


async def _dead_letter(stage: Steps) -> None:
    assert await stage.worker.claims.dead_letter(await stage.claim(), b"", "retries used up") == 1


async def _quarantine(stage: Steps) -> None:
    delivery = await stage.claim()
    await stage.worker.claims.quarantine(delivery.stream, delivery.entry, "rubbish", b"")


async def _retry(stage: Steps) -> None:
    assert await stage.worker.claims.retry(await _signalled(stage), 0, 1, b"") == 2


async def _release(stage: Steps) -> None:
    delivery = await _signalled(stage)
    assert await stage.worker.claims.release(delivery.stream, [(delivery.entry, "parent")]) == [2]


async def _replace(stage: Steps) -> None:
    assert await stage.worker.claims.replace(await _signalled(stage), [stage.job("parent")]) == 2


async def _take_marked(stage: Steps) -> None:
    await _died(stage, await _signalled(stage))


async def _take_last(stage: Steps) -> None:
    await _died(stage, await stage.claim())


async def _revoke(stage: Steps) -> None:
    assert await stage.broker.revoke("parent", signal="c", outcome=b"") == "revoked"


async def _expire(stage: Steps) -> None:
    assert await stage.broker.expire("parent") == "revoked"


ENDS = {
    **{f"finish {letter}": (lambda stage, it=letter: _finish(stage, it), letter) for letter in "SFCE"},
    "dead_letter": (_dead_letter, "F"),
    "quarantine": (_quarantine, "F"),
    "retry of a signalled job": (_retry, "C"),
    "release of a signalled job": (_release, "C"),
    "replace of a signalled job": (_replace, "C"),
    "take of a signalled job": (_take_marked, "C"),
    "take at the cap": (_take_last, "X"),
    "revoke": (_revoke, "C"),
    "expire": (_expire, "E"),
}
