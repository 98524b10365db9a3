"""Views that wait for jobs, on the loop of the server and on a thread."""

from __future__ import annotations

import os
from functools import partial

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path

from django_shop.jobs import add, count_orders
from django_shop.models import Order


async def on_loop(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"sum": await add.options(wait=20).call(int(request.GET["x"]), 1)})


def in_thread(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"sum": add.options(wait=20).call_sync(int(request.GET["x"]), 1)})


def order(request: HttpRequest, name: str) -> JsonResponse:
    try:
        with transaction.atomic():
            Order.objects.create(name=name)
            send = partial(count_orders.options(task_id=f"count-{name}").delay_sync, name)
            transaction.on_commit(send)
            if "fails" in request.GET:
                raise ValueError(name)
    except ValueError:
        return JsonResponse({"state": "rolled back"})
    return JsonResponse({"state": "ordered", "process": os.getpid()})


urlpatterns = [path("sum", on_loop), path("blocking/sum", in_thread), path("orders/<str:name>", order)]
