"""Exceptions of the standard library and of libraries arrive equal, or are caught as their class."""

from __future__ import annotations

import importlib

import pytest
from helpers.exception_table import LIBRARIES, TABLE
from helpers.exceptions import differences, plain_attributes

from asyncq import RemoteError
from asyncq.failures import decode, encode

ITSELF = [row for row in TABLE if row.caught_as is None]
STANDING_IN = [row for row in TABLE if row.caught_as is not None]


def class_named(name: str) -> type:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module or "builtins"), attribute)


@pytest.mark.parametrize("row", ITSELF, ids=lambda row: row.name)
def test_an_exception_arrives_equal(row):
    raised = row.make()
    assert differences(raised, decode(encode(raised)).rebuild()) == []


@pytest.mark.parametrize("row", STANDING_IN, ids=lambda row: row.name)
def test_what_cannot_be_made_equal_is_caught_as_its_class_and_keeps_message_and_attributes(row):
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


def test_the_table_has_sixty_classes_and_ten_libraries():
    assert len({type(row.make()) for row in TABLE}) >= 60
    assert len({row.name.split(".")[0].split(":")[0] for row in LIBRARIES}) >= 10
