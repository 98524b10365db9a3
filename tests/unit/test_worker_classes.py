"""The classes of a worker stay small enough to be understood."""

from __future__ import annotations

from helpers import structure

MOST = 12


def test_no_class_of_the_worker_has_more_than_twelve_attributes():
    counts = structure.attributes("asyncq/worker")
    assert counts["WorkerSession"] > 5, "the count counts nothing"
    assert {name: count for name, count in counts.items() if count > MOST} == {}
