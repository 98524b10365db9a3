"""Views: one awaits a task, one sends a task on commit, one shows a task by its id."""

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.tasks import default_task_backend
from django.tasks.exceptions import TaskResultDoesNotExist
from django.urls import path

from asyncq import ResultTimeout
from shop.models import Order
from shop.tasks import add, count_orders


async def wait_for_sum(request: HttpRequest) -> JsonResponse:
    result = await add.aenqueue(int(request.GET["x"]), int(request.GET["y"]))
    job = default_task_backend.app.AsyncResult(result.id)
    try:
        return JsonResponse({"sum": await job.get(timeout=10, revoke_on_abandon=True)})
    except ResultTimeout:
        return JsonResponse({"detail": "the sum takes longer than ten seconds"}, status=504)


def order(request: HttpRequest, name: str) -> JsonResponse:
    try:
        with transaction.atomic():
            Order.objects.create(name=name)
            result = count_orders.enqueue(name)  # is sent when the transaction is committed
            if "cancel" in request.GET:
                raise ValueError("the customer has changed their mind")
    except ValueError as error:
        return JsonResponse({"task": result.id, "detail": str(error)}, status=409)
    return JsonResponse({"task": result.id}, status=202)


async def show(_request: HttpRequest, id: str) -> JsonResponse:
    try:
        result = await default_task_backend.aget_result(id)
    except TaskResultDoesNotExist:
        return JsonResponse({"detail": "there is no such task"}, status=404)
    value = result.return_value if result.status == "SUCCESSFUL" else None
    return JsonResponse({"status": result.status, "value": value})


urlpatterns = [
    path("sum", wait_for_sum),
    path("orders/<str:name>", order),
    path("tasks/<str:id>", show),
]
