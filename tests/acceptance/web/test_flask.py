"""What only a site of Flask has: iterators that the server closes, and `after_request` around problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import until_sync

from asyncq import AsyncQ

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask, Response
    from helpers.program import Program


def anybody(_request: Any, _id: str) -> bool:
    return True


@pytest.fixture
def jobs(server_url: str, shared_namespace: str, worker: Program) -> Iterator[AsyncQ]:
    app = AsyncQ(server_url, namespace=shared_namespace)
    with app:
        yield app


@pytest.fixture
def site(jobs: AsyncQ) -> Flask:
    from flask import Flask

    from asyncq.integrations.flask import add_error_handlers, jobs_router

    site = Flask(__name__)
    site.register_blueprint(jobs_router(jobs, authorize=anybody), url_prefix="/jobs")
    add_error_handlers(site)

    @site.get("/failure/<kind>")
    def fail(kind: str) -> str:
        return str(jobs.send_sync("tasks.fail", (kind,)).get_sync(timeout=20))

    @site.get("/own-error")
    def own_error() -> str:
        raise ValueError("not of a task")

    @site.after_request
    def tag(response: Response) -> Response:
        response.headers["X-Tag"] = "after"
        return response

    return site


def test_a_stream_that_the_server_closes_leaves_nothing(site: Flask, jobs: AsyncQ) -> None:
    result = jobs.send_sync("tasks.nap", (60,))
    thread = jobs.sessions._thread
    assert thread is not None
    session = jobs.sessions._by_loop[thread.loop]

    response = site.test_client().get(f"/jobs/{result.id}/events", buffered=False)
    assert next(response.iter_encoded()).startswith(b"id: 1\n")
    assert session.listener.subscription._handlers
    response.close()

    until_sync(lambda: not session.listener.subscription._handlers, "the subscription to end")
    assert result.refresh_sync() is None or result.state in {"PENDING", "STARTED"}
    result.revoke_sync(terminate=True)


@pytest.mark.parametrize("propagates", [True, False])
def test_functions_after_requests_see_the_problem_that_a_task_raised(site: Flask, propagates: bool) -> None:
    site.config["PROPAGATE_EXCEPTIONS"] = propagates

    answer = site.test_client().get("/failure/value")

    assert answer.status_code == 500
    assert answer.get_json(force=True)["exception"] == "ValueError"
    assert answer.headers["X-Tag"] == "after"


def test_a_handler_of_the_site_for_what_a_task_raised_comes_first(site: Flask) -> None:
    def answer(_error: Exception) -> tuple[str, int]:
        return "handled", 409

    site.register_error_handler(ValueError, answer)

    assert site.test_client().get("/failure/value").status_code == 409


def test_an_error_of_a_view_stays_what_it_is(site: Flask) -> None:
    site.testing = True

    with pytest.raises(ValueError, match="not of a task"):
        site.test_client().get("/own-error")


def test_a_site_without_a_router_says_what_accepted_needs(jobs: AsyncQ) -> None:
    from flask import Flask

    from asyncq.integrations.flask import accepted, jobs_router

    with Flask(__name__).test_request_context(), pytest.raises(LookupError, match="register_blueprint"):
        accepted(jobs.AsyncResult("x"))
    with pytest.raises(TypeError, match="handle of one job"):
        accepted("x")  # type: ignore[arg-type]
    wrong: Any = True
    with pytest.raises(TypeError, match="authorize=True"):
        jobs_router(jobs, authorize=wrong)
