"""Writes server-sent events, and keeps a silent stream open.

https://html.spec.whatwg.org/multipage/server-sent-events.html. This module knows no framework. It runs on
the loop of the site.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from asyncq.system.tasks import cancel_and_wait

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

MEDIA_TYPE: Final = "text/event-stream"
HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx holds an answer back, unless it is told otherwise
}
END: Final = "end"
"""The kind, and the id, of the event behind the last. A browser whose stream has ended asks again, with the
id of the last event that it got. To this one the answer is 204, on which it stops."""
KEEPALIVE: Final = b": \n\n"
"""A comment, which readers pass over."""
SILENCE = 15.0
"""Seconds without an event after which a comment is sent. Proxies close what is silent for a minute, and a
connection whose other end has vanished is found only by sending."""


def event(data: Any, id: int | str, kind: str | None = None) -> bytes:
    r"""Returns the bytes of an event.

    Args:
        data: a JSON value.
        id: what a reader that comes back sends as `Last-Event-ID`.
        kind: the name under which a browser dispatches it; None for `message`.

    >>> event({"state": "STARTED"}, 2)
    b'id: 2\ndata: {"state": "STARTED"}\n\n'
    """
    # Text in JSON has no line breaks, so one line is enough.
    text = json.dumps(data, ensure_ascii=False)
    named = "" if kind is None else f"event: {kind}\n"
    return f"id: {id}\n{named}data: {text}\n\n".encode("utf-8", "replace")


async def kept_alive(
    events: AsyncGenerator[bytes, None], silence: float | None = None
) -> AsyncGenerator[bytes, None]:
    """Gives the events, and a comment after each `silence` seconds (default: `SILENCE`) without one. Closes
    the events at its end.
    """
    pause = SILENCE if silence is None else silence
    async with aclosing(events):
        step: asyncio.Future[bytes] | None = None
        try:
            while True:
                # In a task of its own: a timeout around the step would cancel the generator.
                step = step or asyncio.ensure_future(anext(events))
                if not (await asyncio.wait({step}, timeout=pause))[0]:
                    yield KEEPALIVE
                    continue
                done, step = step, None
                try:
                    data = done.result()
                except StopAsyncIteration:
                    return
                yield data
        finally:
            if step is not None:
                await cancel_and_wait(step)
