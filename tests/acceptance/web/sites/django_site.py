"""A Django site under ASGI, whose view ends its job when it is cancelled."""

from __future__ import annotations

import socket

import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from tasks import nap

waiting: set[str] = set()
"""The jobs for which a request waits. One that is abandoned before that goes on."""


async def hold(request: HttpRequest, id: str) -> HttpResponse:
    result = await nap.options(task_id=id).delay(60)
    waiting.add(id)
    return HttpResponse(await result.get(revoke_on_abandon=True))


async def count(_: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(waiting)))


urlpatterns = [path("naps/<str:id>", hold), path("waiting", count)]

if __name__ == "__main__":
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="not a secret")
    site = get_asgi_application()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        print(listening.getsockname()[1], flush=True)  # noqa: T201  how the tests learn the port
        config = uvicorn.Config(site, log_level="warning", lifespan="off")
        uvicorn.Server(config).run(sockets=[listening])
