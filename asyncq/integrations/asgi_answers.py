"""Answers of Starlette sites: problems, streams of events, and what ends when the client goes away.

An ASGI server does not cancel the handler of a client that went away. It says so to whoever receives, and
that is nobody while a handler waits for a job. So `client_gone` receives meanwhile, in a `WhileConnected`. On
the loop of the site.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from asyncq.integrations import problems, server_sent_events
from asyncq.integrations.client_watch import WhileConnected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from starlette.types import Receive, Scope, Send

    from asyncq.integrations.problems import Problem

_NO_STORE = {"Cache-Control": "no-store"}
_GONE = {"http.disconnect", "websocket.disconnect"}


class ProblemAnswer(Response):
    """Answers with a problem document."""

    media_type = problems.MEDIA_TYPE

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.body(), problem.status, problem.headers)


class DocumentAnswer(Response):
    """Answers with a JSON document, which no cache keeps."""

    media_type = "application/json"

    def __init__(self, document: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
        super().__init__(body, headers={**_NO_STORE, **headers})


async def client_gone(receive: Receive) -> None:
    """Returns when the client has gone away. What else is received is dropped: the body of a request must
    have been read.
    """
    while (await receive())["type"] not in _GONE:
        pass


class EventStream(Response):
    """Answers with server-sent events, until they end or the client goes away. Closes them in any case.

    Args:
        events: the bytes of each event.
    """

    media_type = server_sent_events.MEDIA_TYPE

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers=server_sent_events.HEADERS)
        del self.headers["Content-Length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Sends the answer."""
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        events = server_sent_events.kept_alive(self._events)
        try:
            await send(start)
            async with WhileConnected(client_gone(receive)) as client:
                async for data in events:
                    # A server may say by this error that the client has gone.
                    try:
                        await send({"type": "http.response.body", "body": data, "more_body": True})
                    except OSError:
                        return
            if not client.is_gone:
                with suppress(OSError):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await events.aclose()
