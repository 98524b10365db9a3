"""The worker: takes jobs from the queues and runs them."""

from asyncq.worker.worker import Worker

__all__ = ["Worker"]
