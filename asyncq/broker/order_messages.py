r"""Orders of an operator to a worker, and their answers, as they are sent: `ping`, `quiet`, `stop`, `stacks`.
`worker_orders` sends orders, `worker.orders` carries them out. Pure functions.

    !<order> <reply channel>                    the order; the reply channel belongs to this call alone
    <session id> <number> <how many>\n<text>    one part of the answer; a long text comes in several

An order may be lost, so its sender repeats it until it is answered. It may come twice, so each says what is
to be, and not what is to change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq.broker.schema.keys import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGN = b"!"
"""With this, an order begins. Revocation signals and permits begin with a letter."""
PING, PAUSES, QUIET, GO_ON, STOP, STACKS = "ping", "pauses", "quiet", "go-on", "stop", "stacks"
PART_BYTES = 8 * 1024
"""The longest part of an answer. Above 16 KiB, a message is not counted against the buffer limit of a client
that does not read."""
MOST_PARTS = 64
"""Most parts of an answer. What is longer is cut."""


def order_in(data: bytes, replies: str) -> tuple[str, str] | None:
    """Returns the order in a message on the channel of a worker session, and the channel for the answer. None
    if the message is no order, or its channel is no reply channel.

    Args:
        data: the message.
        replies: the beginning of the names of reply channels.
    """
    order, _, channel = text_of(data[len(SIGN) :]).partition(" ")
    return (order, channel) if data.startswith(SIGN) and channel.startswith(replies) else None


def parts_of(session_id: str, text: str) -> Iterator[bytes]:
    """Yields an answer as it is published: in parts, each with the session id in front."""
    data = text.encode("utf-8", "replace")[: PART_BYTES * MOST_PARTS]
    pieces = [data[first : first + PART_BYTES] for first in range(0, len(data), PART_BYTES)] or [b""]
    for number, piece in enumerate(pieces):
        yield f"{session_id} {number} {len(pieces)}\n".encode("utf-8", "surrogateescape") + piece
