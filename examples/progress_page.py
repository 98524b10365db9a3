"""A page with a progress bar: it starts a job, follows it by server-sent events, and can end it.

Run it with `python examples/progress_page.py`: it starts the site and a worker, follows a job as the page
would, and ends. To see the page, run `uvicorn progress_page:site` and `asyncq worker progress_page:app` in
this folder, and open http://127.0.0.1:8000. Needs `pip install fastapi uvicorn httpx`.
"""

import asyncio
import json
import socket

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.requests import HTTPConnection

import asyncq
from asyncq import AsyncQ, Worker
from asyncq.integrations.fastapi import JobAccepted, accepted, add_error_handlers, jobs_router

app = AsyncQ()


@app.task
async def render(pages: int) -> dict[str, str]:
    job = asyncq.current()
    for page in range(1, pages + 1):
        await asyncio.sleep(0.05)
        await job.progress(page, pages, f"page {page}")
    return {"title": "report.pdf"}


async def may_see(_request: HTTPConnection, _id: str) -> bool:
    return True  # a real site looks whether the job belongs to the user of the request's session


site = FastAPI(lifespan=app.lifespan)
site.include_router(jobs_router(app, authorize=may_see), prefix="/jobs")
add_error_handlers(site)


@site.post("/reports", status_code=202)
async def start(pages: int, request: Request, response: Response) -> JobAccepted:
    return accepted(await render.delay(pages), response, request)


PAGE = """<!doctype html>
<title>Report</title>
<button id="go">Render</button> <button id="revoke">Stop</button>
<progress id="bar" value="0"></progress> <output id="state"></output>
<script type="module">
let url;
go.onclick = async () => {
    const started = await fetch("/reports?pages=20", {method: "POST"});
    url = started.headers.get("Location");
    const source = new EventSource(`${url}/events`);
    source.onmessage = event => {
        const job = JSON.parse(event.data);
        if (job.progress) bar.value = job.progress.done / job.progress.total;
        state.textContent = job.value?.title ?? job.error?.title ?? job.state;
    };
    source.addEventListener("end", () => source.close());
};
revoke.onclick = () => fetch(url, {method: "DELETE"});
</script>
"""


@site.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE


async def follow(url: str) -> None:
    """Does what the page does."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        started = await client.post("/reports", params={"pages": 5})
        job = started.headers["Location"]
        print("POST /reports:", started.status_code)
        async with client.stream("GET", f"{job}/events") as events:
            async for line in events.aiter_lines():
                if line == "event: end":
                    break
                if line.startswith("data: "):
                    shown = json.loads(line.removeprefix("data: "))
                    if "progress" in shown:
                        bar = "#" * shown["progress"]["done"]
                    if "value" in shown:
                        print(f"{bar} {shown['state']} {shown['value']['title']}")


async def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # port 0: any free port
        server = uvicorn.Server(uvicorn.Config(site, log_level="warning"))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        async with app, Worker(app):
            await follow(f"http://127.0.0.1:{listening.getsockname()[1]}")
            server.should_exit = True
            await serving


if __name__ == "__main__":
    asyncio.run(main())

# Output:
# POST /reports: 202
# ##### SUCCESS report.pdf
