"""Annotations of tasks with real workers: imports for type checkers, and names that are defined nowhere."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date as date_, datetime
from typing import TYPE_CHECKING, Generic, TypeVar

import pytest
from helpers import models

from asyncq import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from helpers.models import Order

pytestmark = pytest.mark.anyio

T = TypeVar("T")


async def test_a_worker_builds_classes_that_are_imported_for_type_checkers(app):
    @app.task
    async def latest(orders: Sequence[Order], day: date) -> Order:
        assert type(day) is date_
        return max(orders, key=lambda order: order.at)

    orders = [models.Order(n, datetime(2026, 1, n, tzinfo=UTC)) for n in (1, 3, 2)]
    async with Worker(app):
        assert await latest.options(wait=10).call(orders, date_(2026, 1, 1)) == orders[1]


async def test_a_worker_does_not_start_with_an_annotation_that_is_defined_nowhere(app):
    @app.task
    async def buy(order: Ordr) -> None: ...  # noqa: F821

    with pytest.raises(TypeError, match=r"the parameter 'order' of .*buy uses Ordr, which is not defined in"):
        async with Worker(app):
            pass


@dataclasses.dataclass
class Box(Generic[T]):
    item: T


@dataclasses.dataclass
class Shelf:
    box: Box[int] | Box[str]


async def test_a_worker_does_not_start_with_a_field_of_an_ambiguous_union(app):
    @app.task
    async def put(shelf: list[Shelf] | None) -> None: ...

    with pytest.raises(
        TypeError,
        match=r"the parameter 'shelf' of .*\.put: the field box of .*Shelf: .*s Box\[int\] and Box\[str\]",
    ):
        async with Worker(app):
            pass


async def test_a_call_with_an_annotation_that_is_defined_nowhere_enqueues_nothing(app):
    @app.task
    async def buy(order: int) -> Ordr: ...  # noqa: F821

    with pytest.raises(TypeError, match=r"the result of .*buy uses Ordr"):
        await buy.options(task_id="one").delay(1)
    assert not await app.AsyncResult("one").exists()
