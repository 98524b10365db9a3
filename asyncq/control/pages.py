"""A page of a listing: some items, and from where the next page goes on. Pure data."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgpack

from asyncq import wire
from asyncq.short_repr import brief

if TYPE_CHECKING:
    from collections.abc import Iterator

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """Some items of a long list. `for item in page` and `len(page)` are about its items.

    Attributes:
        items: those that fit the filters, fewer than `limit` or none if the call has looked at enough others.
        cursor: give it to the next call, with the same filters, to go on. None: that was the last page.
        looked_at: how many this call has looked at to find them. Where no index serves a filter, a call looks
            at some ten thousand and returns.

    Example:
        ```python
        cursor, looked_at = None, 0
        while True:
            page = await app.control.jobs(task="shop.tasks.charge", cursor=cursor)
            looked_at += page.looked_at
            for job in page:
                print(job.id, job.state, job.enqueued)
            if (cursor := page.cursor) is None:
                break
        ```
    """

    items: list[T_co]
    cursor: str | None
    looked_at: int

    def __iter__(self) -> Iterator[T_co]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def encode_cursor(*fields: str | int) -> str:
    """Returns a text that stands for a place in a listing, and says nothing to its reader."""
    return base64.urlsafe_b64encode(wire.packed(fields)).decode().rstrip("=")


def decode_cursor(cursor: str, *types: type) -> list[Any]:
    """Returns the fields in a cursor.

    Raises:
        ValueError: no call has returned this cursor.
    """
    try:
        data = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        fields = msgpack.unpackb(data)
    except (ValueError, binascii.Error, AttributeError, msgpack.UnpackException) as error:
        raise _no_cursor(cursor) from error
    if not isinstance(fields, list) or [type(field) for field in fields] != list(types):
        raise _no_cursor(cursor)
    return fields


def _no_cursor(cursor: object) -> ValueError:
    return ValueError(f"cursor={brief(cursor)} is none that a page had: pass page.cursor as it is, or None")
