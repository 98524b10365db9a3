"""Handles that show their job in a notebook of Jupyter, with its state and its progress, while it runs.

`pip install 'asyncq[jupyter]'`, and in the first cell `%load_ext asyncq.integrations.jupyter`. From then on,
a handle at the end of a cell shows its job, and what is shown changes with the job; the cell itself has
ended. Notebooks have a running loop, so cells await: `await add.call(1, 2)`. Runs on the loop of the
notebook.

Example:
    ```python
    %load_ext asyncq.integrations.jupyter

    result = await render.delay(20)
    result
    ```
"""

from __future__ import annotations

import asyncio
import html
from typing import TYPE_CHECKING, Any

from asyncq.integrations.extras import needs_extra

with needs_extra("jupyter"):
    from IPython import display

from asyncq import sync_bridge
from asyncq.errors import AsyncQError
from asyncq.results.handle import AsyncResult
from asyncq.short_repr import brief
from asyncq.states import State

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load_ipython_extension", "show", "unload_ipython_extension"]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Makes handles show their jobs: `%load_ext asyncq.integrations.jupyter` calls it. Twice is once."""
    _formatter(shell).for_type(AsyncResult, show)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Makes handles show themselves as text again: `%unload_ext asyncq.integrations.jupyter` calls it."""
    _formatter(shell).pop(AsyncResult, None)


def _formatter(shell: InteractiveShell) -> Any:
    display_formatter: Any = shell.display_formatter
    return display_formatter.ipython_display_formatter


def show(result: AsyncResult[Any]) -> None:
    """Shows a job, and follows it in the background to its end. What is shown has its state, a bar with its
    progress, and at the end its value or its error.

    It shows the job as it was last seen, and does not follow it, where no event loop runs: in a script, and
    in a cell of IPython in a terminal.

    Example:
        ```python
        for result in await render.map([(10,), (20,)]):
            show(result)
        ```
    """
    library: Any = display  # it has no types
    handle = library.display(_shown(result, str(result.state), result.info), raw=True, display_id=True)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    sync_bridge.keep(loop.create_task(_follow(result, handle)))


async def _follow(result: AsyncResult[Any], handle: Any) -> None:
    try:
        async for event in result.events():
            handle.update(_shown(result, str(event.state), event.info), raw=True)
    except AsyncQError as error:
        # It was forgotten, or the app was closed. The notebook shows this in the place of the job.
        handle.update(_shown(result, str(State.UNKNOWN), error), raw=True)


def _shown(result: AsyncResult[Any], state: str, info: Any) -> dict[str, str]:
    """Returns what is shown, as text and as HTML."""
    name = result.name or "job"
    progress = ""
    if isinstance(info, Exception):
        text = f"{type(info).__name__}: {info}"
    elif state == State.SUCCESS:
        text = brief(info)
    else:
        progress, text = _progress(info)
    shown = [f"<code>{html.escape(name)}</code>", f"<b>{html.escape(state)}</b>", progress, html.escape(text)]
    return {
        "text/plain": " ".join(filter(None, (f"{name} {result.id}", state, text))),
        "text/html": f'<div title="{html.escape(result.id)}">{" ".join(filter(None, shown))}</div>',
    }


def _progress(info: Any) -> tuple[str, str]:
    """Returns a bar and a text for what a task has reported."""
    match info:
        case None:
            return "", ""
        case {"done": int() | float() as done, "total": int() | float() as total, "message": str(message)}:
            bar = f'<progress value="{done}" max="{total}"></progress>'
            return bar, f"{done} of {total} {message}".rstrip()
    return "", brief(info)
