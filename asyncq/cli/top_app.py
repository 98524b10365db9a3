"""The screen of `asyncq top`, made with textual. Its figures are those of `overview`, read each second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.app import App
from textual.binding import Binding
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static

from asyncq import config
from asyncq.cli import overview
from asyncq.errors import BrokerUnavailable
from asyncq.logs import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.app import ComposeResult
    from textual.binding import BindingType

    from asyncq.app import AsyncQ
    from asyncq.control.job_listing import JobInfo

PERIOD = 1.0
"""Seconds between two looks."""
MOST_JOBS = 50
"""So many running jobs are shown."""
_COLUMNS = {
    "queues": ("queue", "waiting", "running", "oldest", "workers", ""),
    "workers": ("worker", "process", "queues", "busy", "done", "failed", ""),
    "jobs": ("running job", "task", "queue", "attempt", "worker", "started"),
}


class Question(ModalScreen[bool]):
    """Asks a question, and gives whether the answer is yes.

    Args:
        text: the question.
    """

    CSS: ClassVar[str] = "Question { align: center middle; } Question Static { width: auto; padding: 1 2; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Makes the widgets."""
        yield Static(Text(f"{self._text} [y/n]"))

    def action_answer(self, answer: bool) -> None:
        """Takes the answer."""
        self.dismiss(answer)


class Top(App[None]):
    """Shows an app that is open.

    Args:
        served: the app.
    """

    TITLE: str | None = "asyncq top"
    CSS: ClassVar[str] = "DataTable { height: 1fr; } #server { height: auto; padding: 0 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
        Binding("p", "pause", "Pause or resume the queue"),
    ]

    def __init__(self, served: AsyncQ) -> None:
        super().__init__()
        self._served = served
        self._paused: dict[str, bool] = {}

    def compose(self) -> ComposeResult:
        """Makes the widgets."""
        yield Static(id="server")
        for name in _COLUMNS:
            yield DataTable(id=name, cursor_type="row" if name == "queues" else "none")
        yield Footer()

    async def on_mount(self) -> None:
        """Looks for the first time, and each second from then on."""
        for name, columns in _COLUMNS.items():
            self._table(name).add_columns(*columns)
        self._table("queues").focus()
        await self.look()
        self.set_interval(PERIOD, self.look)

    async def look(self) -> None:
        """Reads all figures and shows them. A server that is away is looked for again."""
        line = self.query_one("#server", Static)
        try:
            found = await overview.of(self._served)
            jobs = await self._served.control.jobs("STARTED", limit=MOST_JOBS)
        except BrokerUnavailable as error:
            line.update(Text(escaped(str(error).partition("\n")[0]), style="red"))
            return
        server, stats = found.server, found.stats
        line.update(
            Text(
                escaped(
                    f"{server.version or '?'} at {server.address}, namespace {server.namespace}   "
                    f"{overview.figures(server)}\n"
                    f"{stats.delayed} delayed  {stats.retrying} retrying  "
                    f"{stats.waiting_for_parents} waiting for parents  {stats.dead} dead",
                    keep="\n",
                )
            )
        )
        self._paused = {queue.name: queue.paused for queue in found.queues}
        self._fill(
            "queues",
            (
                (
                    *(one.name, one.waiting, one.running),
                    *(config.shown(one.oldest_wait) if one.waiting else "-", one.consumers),
                    "paused" if one.paused else "",
                )
                for one in found.queues
            ),
        )
        self._fill(
            "workers",
            (
                (
                    *(one.name, f"{one.host}:{one.pid}", ",".join(one.queues)),
                    *(f"{one.busy}/{one.concurrency}", one.done, one.failed, "quiet" if one.quiet else ""),
                )
                for one in found.workers
            ),
        )
        self._fill("jobs", map(_cells, jobs))

    def _table(self, name: str) -> DataTable[Text]:
        return self.query_one(f"#{name}", DataTable)

    def _fill(self, name: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Replaces the rows of a table; the row that was selected stays selected."""
        table = self._table(name)
        before = table.cursor_row
        table.clear()
        for row in rows:
            # As Text: what a stranger has named would else be read as markup.
            table.add_row(*(Text(escaped(str(cell))) for cell in row))
        table.move_cursor(row=min(before, table.row_count - 1))

    def action_pause(self) -> None:
        """Asks whether to pause the selected queue, or to let it go on."""
        table = self._table("queues")
        if not table.row_count:
            return
        queue = table.get_row_at(table.cursor_row)[0].plain
        is_paused = self._paused[queue]

        async def change(answer: bool | None) -> None:
            if answer:
                control = self._served.control
                await (control.resume(queue) if is_paused else control.pause(queue))
                await self.look()

        self.push_screen(Question(f"{'Resume' if is_paused else 'Pause'} queue {queue!r}?"), change)


def _cells(job: JobInfo) -> tuple[Any, ...]:
    started = "" if job.started is None else f"{job.started:%H:%M:%SZ}"
    return job.id, job.task or "?", job.queue, job.attempt, job.worker or "", started
