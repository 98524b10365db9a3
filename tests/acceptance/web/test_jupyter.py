"""Handles in a real Jupyter kernel, whose messages are read as a notebook reads them."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.forked import Forked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.program import Program
    from jupyter_client.blocking.client import BlockingKernelClient

TIMEOUT = 60.0


class Notebook:
    """A kernel, and what its cells show."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self._client = client
        self.shown: dict[str, list[dict[str, str]]] = {}
        """All that was shown at each place, in order."""

    def run(self, cell: str) -> str:
        """Runs a cell, and returns the text that it has printed, or the value that it ends with."""
        asked = self._client.execute(cell)
        texts = []
        while True:
            message = self._next()
            if message["parent_header"].get("msg_id") == asked:
                content = message["content"]
                assert message["msg_type"] != "error", content
                if message["msg_type"] == "stream":
                    texts.append(content["text"])
                if message["msg_type"] == "execute_result":
                    texts.append(content["data"]["text/plain"])
                if (message["msg_type"], content.get("execution_state")) == ("status", "idle"):
                    return "".join(texts)

    def until_shown(self, text: str) -> list[str]:
        """Waits until a place shows a text, and returns all that was shown there."""
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            for shown in self.shown.values():
                if text in shown[-1]["text/html"]:
                    return [one["text/html"] for one in shown]
            self._next()
        raise AssertionError(self.shown)

    def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = self._client.get_iopub_msg(timeout=TIMEOUT)
        if message["msg_type"] in {"display_data", "update_display_data"}:
            content = message["content"]
            self.shown.setdefault(content["transient"]["display_id"], []).append(content["data"])
        return message


@contextmanager
def kernel(environ: dict[str, str], folder: Path) -> Iterator[Notebook]:
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env={**environ, "IPYTHONDIR": str(folder)}, cwd=str(folder))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=TIMEOUT)
        yield Notebook(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@pytest.mark.usefixtures("leaves_descriptors")  # a context of zmq lives until the process ends
def test_a_handle_at_the_end_of_a_cell_shows_its_progress_and_its_end_as_the_page_says(
    environ: dict[str, str], worker: Program, namespace: str, tmp_path: Path
) -> None:
    with kernel(environ, tmp_path) as notebook:
        page = Path(__file__).parents[3] / "docs/howto/jupyter.md"
        [module], cells = (
            re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
            for language in ("python", "ipython")
        )
        (tmp_path / "reports.py").write_text(module)
        variables = {**environ, "ASYNCQ_NAMESPACE": namespace}
        reports = Forked(["-m", "asyncq", "--quiet", "worker", "reports:app"], tmp_path, variables)
        notebook.run(f"import os\nos.environ['ASYNCQ_NAMESPACE'] = {namespace!r}")
        try:
            values = [notebook.run(cell) for cell in cells]
            assert values == ["", "", "", "'20 pages'"]
            for pages in (5, 10, 20):
                shown = notebook.until_shown(f"&#x27;{pages} pages&#x27;")
                assert len(shown) > 3
        finally:
            reports.terminate()
            reports.communicate(timeout=60)

        notebook.run(f"os.environ['ASYNCQ_NAMESPACE'] = {environ['ASYNCQ_NAMESPACE']!r}")
        notebook.run("from tasks import app, draw, fail, nap\nimport asyncq.integrations.jupyter as jupyter")

        assert notebook.run("await draw.delay(5)") == "", "it is not shown as text"
        shown = notebook.until_shown("Picture(")
        assert any('<progress value="3" max="5"></progress>' in one for one in shown)
        assert "<b>SUCCESS</b>" in shown[-1]
        assert "<progress" not in shown[-1]

        notebook.run("await fail.delay('value')")
        assert "ValueError: &lt;b&gt;no&lt;/b&gt; such luck" in notebook.until_shown("<b>FAILURE</b>")[-1]

        notebook.run("jupyter.show(app.AsyncResult('nobody'))")
        assert "ResultNotFound" in notebook.until_shown("ResultNotFound")[-1]

        notebook.run("result = await nap.delay(60)\nresult")
        notebook.run("await result.revoke(terminate=True)")
        assert "TaskRevoked" in notebook.until_shown("<b>REVOKED</b>")[-1]

        notebook.run("%unload_ext asyncq.integrations.jupyter")
        assert notebook.run("await draw.delay(1)").startswith("<AsyncResult ")
