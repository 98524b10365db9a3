"""Celery as in `celery_prefork`, but one process with a pool of a hundred threads."""

from adapters.celery_prefork import CelerySystem, app

__all__ = ["SYSTEM", "app"]

SYSTEM = CelerySystem("celery_threads", slots=100)
