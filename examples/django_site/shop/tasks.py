"""Tasks of the site: `manage.py asyncq_worker` finds this module by its name."""

from django.tasks import task

from shop.models import Order


@task
def count_orders(name: str) -> int:
    return Order.objects.filter(name=name).count()


@task(priority=10)
async def add(x: int, y: int) -> int:
    return x + y
