"""Exceptions of the standard library and of libraries arrive equal, or are caught as their class."""

from __future__ import annotations

import importlib

import pytest
from helpers.exceptions import differences, plain_attributes

from asyncq import RemoteError
from asyncq.failures import decode, encode


@pytest.fixture(scope="module")
def table():
    """Returns the rows. Imports them late: the import takes two seconds, in each process that collects the
    tests.
    """
    from helpers.exception_table import TABLE

    return TABLE


def class_named(name: str) -> type:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module or "builtins"), attribute)


def test_each_exception_of_the_table_arrives_equal(table):
    for row in table:
        if row.caught_as is None:
            raised = row.make()
            assert differences(raised, decode(encode(raised)).rebuild()) == [], row.name


def assert_caught_as_its_class(row) -> None:
    raised = row.make()
    arrived = decode(encode(raised)).rebuild()
    assert isinstance(arrived, RemoteError)
    assert arrived.type_name.rpartition(".")[2] == type(raised).__qualname__
    assert str(arrived) == f"{arrived.type_name}: {raised}".removesuffix(": ")
    assert isinstance(arrived, class_named(row.caught_as))
    if "pydantic" not in row.name:
        assert arrived.attributes == plain_attributes(raised)
        for name, value in arrived.attributes.items():
            assert getattr(arrived, name) == value


def test_an_exception_that_cannot_be_rebuilt_is_caught_as_its_class_and_keeps_its_attributes(table):
    rows = [row for row in table if row.caught_as is not None]
    assert len(rows) > 5
    for row in rows:
        assert_caught_as_its_class(row)


def test_the_table_has_sixty_classes_of_ten_libraries(table):
    assert len({type(row.make()) for row in table}) >= 60
    libraries = importlib.import_module("helpers.exception_table").LIBRARIES
    assert len({row.name.split(".")[0].split(":")[0] for row in libraries}) >= 10
