"""The HTTP server of `--health-port`. It is imported only where the option is given."""

from __future__ import annotations

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncq.cli.health_port import Health


class HealthServer(ThreadingHTTPServer):
    """The server, which answers each request on a thread of its own.

    Args:
        port: the TCP port, on all addresses.
        check: says how the worker is.

    Raises:
        OSError: it cannot listen there.
    """

    daemon_threads = True

    def __init__(self, port: int, check: Callable[[], Health]) -> None:
        self.check = check
        super().__init__(("0.0.0.0", port), _ProbeHandler)  # noqa: S104  probes come from other machines


class _ProbeHandler(BaseHTTPRequestHandler):
    """Answers one request: 200 or 503, with one word as its text."""

    def do_GET(self) -> None:
        assert isinstance(self.server, HealthServer)
        match self.path.partition("?")[0]:
            case "/livez":
                self._answer("live", is_good=self.server.check().is_live)
            case "/readyz":
                self._answer("ready", is_good=self.server.check().is_ready)
            case _:
                self.send_error(HTTPStatus.NOT_FOUND, explain="there are /livez and /readyz")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, word: str, *, is_good: bool) -> None:
        text = f"{word}\n" if is_good else f"not {word}\n"
        self.send_response(HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: a probe comes every few seconds."""
