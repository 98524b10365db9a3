"""A page in a real browser follows jobs of a real site with `EventSource`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers import browser
from helpers.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(browser.found() is None, reason=f"no browser here: none of {browser.PROGRAMS}"),
]


@pytest.fixture(scope="module")
def site(start: Callable[..., Program]) -> Iterator[str]:
    program = start("jobs_site.py")
    yield f"http://127.0.0.1:{program.first_line()}"
    program.stop()


FOLLOW = """
(async () => {
    const answer = await fetch("%s", {method: "POST"});
    const url = answer.headers.get("Location");
    const seen = [];
    const source = new EventSource(`${url}/%s`);
    let opened = 0;
    source.onopen = () => opened++;
    let looked;
    source.onmessage = event => {
        const document = JSON.parse(event.data);
        seen.push([event.lastEventId, document]);
        if (document.progress) looked ||= fetch(url.replace("/jobs/", "/looks/"), {method: "POST"});
    };
    source.addEventListener("end", event => seen.push([event.lastEventId, JSON.parse(event.data)]));
    // The page does not close it. The browser asks again, until the site answers that there is nothing more.
    await new Promise(closed => source.onerror = () => source.readyState === EventSource.CLOSED && closed());
    return {seen, opened};
})()"""


async def test_a_browser_follows_a_job_and_a_stream_to_their_ends_and_stops_by_itself(
    site: str, tmp_path: Path
) -> None:
    both = (FOLLOW % ("/unseen-pictures", "events"), FOLLOW % ("/counts?to=3", "stream"))
    async with browser.page(tmp_path) as page:
        await page.open(f"{site}/openapi.json")
        events, items = await page.run(f"Promise.all([{both[0]}, {both[1]}])")

    *numbers, end = [number for number, _ in events["seen"]]
    assert (numbers, end) == ([str(number + 1) for number in range(len(numbers))], "end")
    assert any("progress" in document for _, document in events["seen"])
    assert events["seen"][-1][1]["value"] == {"title": "Dawn", "exposure": "PT1M30S"}
    assert [item for item in items["seen"] if item[0] != "end"] == [["1", 1], ["2", 2], ["3", 3]]
    assert (events["opened"], items["opened"]) == (1, 1)


EXAMPLES = Path(__file__).parents[3] / "examples"
SERVE = """
import asyncio, socket, uvicorn
from asyncq import Worker
from progress_page import app, site

async def main():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        async with app, Worker(app):
            await uvicorn.Server(uvicorn.Config(site, log_level="warning")).serve(sockets=[listening])

asyncio.run(main())
"""
WATCH = """
(async () => {
    const seen = [];
    const watch = new MutationObserver(() => seen.push([bar.value, state.textContent]));
    watch.observe(bar, {attributes: true});
    watch.observe(state, {childList: true});
    %s.click();
    while (!["report.pdf", "The job was revoked"].includes(state.textContent)) {
        await new Promise(done => setTimeout(done, 10));
        if (%s && bar.value > 0) revoke.click();
    }
    return {values: seen.map(one => one[0]), last: state.textContent};
})()"""


async def test_the_progress_bar_of_the_example_fills_and_its_button_ends_the_job(
    environ: dict[str, str], namespace: str, tmp_path: Path
) -> None:
    variables = {**environ, "PYTHONPATH": str(EXAMPLES), "ASYNCQ_NAMESPACE": namespace}
    program = Program(["-c", SERVE], EXAMPLES, variables)
    try:
        url = f"http://127.0.0.1:{program.first_line()}/"
        async with browser.page(tmp_path) as page:
            await page.open(url)
            whole = await page.run(WATCH % ("go", "false"))
            await page.open(url)
            part = await page.run(WATCH % ("go", "true"))
    finally:
        program.close()

    assert whole["last"] == "report.pdf"
    assert len(set(whole["values"])) > 5
    assert whole["values"] == sorted(whole["values"])
    assert whole["values"][-1] == 1
    assert part["last"] == "The job was revoked"
    assert part["values"][-1] < 1
