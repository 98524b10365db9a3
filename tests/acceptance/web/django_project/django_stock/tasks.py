"""Tasks of Django, of each kind."""

from __future__ import annotations

import asyncio
import os
import threading

from django.db import connection
from django.dispatch import receiver
from django.tasks import task
from django.tasks.signals import task_finished, task_started
from django_shop.models import Order

import asyncq


@task
def add(x, y):
    return x + y


@task(priority=10, queue_name="media")
async def add_on_loop(x, y):
    return x + y


@task
def echo(*args, **kwargs):
    return [list(args), kwargs]


@task(takes_context=True)
def describe(context, *, fails_until=0):
    result = context.task_result
    if context.attempt < fails_until:
        raise asyncq.RetryLater(countdown=0.05)
    return [context.attempt, result.id, result.status, result.args, result.kwargs, str(result.enqueued_at)]


@task(takes_context=True)
async def describe_on_loop(context, name):
    return [context.attempt, context.task_result.id, name]


class OutOfStock(Exception):
    """An error of the site."""


@task
def fail(name):
    raise OutOfStock(name)


@task
async def fail_on_loop(name):
    raise OutOfStock(name)


@task
def fail_and_wait(name):
    try:
        raise OutOfStock(name)
    except OutOfStock as error:
        raise asyncq.RetryLater(countdown=600) from error


@task
def no_json():
    return object()


@task(backend="on_commit")
def count_orders(name):
    return Order.objects.filter(name=name).count()


@task
async def count_orders_on_loop(name):
    return await Order.objects.filter(name=name).acount()


@task
def place():
    return [os.getpid(), threading.current_thread() is threading.main_thread(), connection.vendor]


@task
async def hold(seconds):
    await asyncio.sleep(seconds)


@task(backend="shop", queue_name="shop")
def in_shop(x):
    return x


noted = []


@receiver(task_started)
def note_start(sender, task_result, **_):
    noted.append([task_result.id, "started", task_result.status, task_result.attempts])


@receiver(task_finished)
def note_end(sender, task_result, **_):
    noted.append([task_result.id, "finished", task_result.status, task_result.attempts])


@receiver(task_finished)
def fail_to_note(sender, **_):
    raise RuntimeError("a receiver cannot fail a task")


@task
def signals_of(id):
    return [words for each, *words in noted if each == id]
