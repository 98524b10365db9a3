"""A module with a task that Django does not find by itself."""

from django.tasks import task


@task
def ping():
    return "pong"
