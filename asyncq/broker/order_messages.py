r"""Orders of an operator to a worker, and their answers, as they are sent: `ping`, `quiet`, `stop`, `stacks`.
`worker_orders` sends orders, `worker.orders` carries them out. Pure functions.

    !<order> <reply channel>                    the order; the reply channel belongs to this call alone
    !<sealed: <order> <reply channel> <ms>>     the same with secrets, and when it was sent
    <session id> <number> <how many>\n<text>    one part of the answer; a long text comes in several

An order may be lost, so its sender repeats it until it is answered. It may come twice, so each says what is
to be, and not what is to change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq.broker.schema.keys import text_of
from asyncq.system import clock
from asyncq.wire import LATEST, NotSigned, number_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncq.broker.signing.seal import Seal

SIGN = b"!"
"""With this, an order begins. Revocation signals and permits begin with a letter."""
PING, PAUSES, QUIET, GO_ON, STOP, STACKS = "ping", "pauses", "quiet", "go-on", "stop", "stacks"
PART_BYTES = 8 * 1024
"""The longest part of an answer. Above 16 KiB, a message is not counted against the buffer limit of a client
that does not read."""
MOST_PARTS = 64
"""Most parts of an answer. What is longer is cut."""
VALID_MS = 300_000
"""For so long a signed order is accepted, in ms: so much may the clocks of two machines differ."""


def order_in(data: bytes, replies: str) -> tuple[str, str] | None:
    """Returns the order in a message on the channel of a worker session, and the channel for the answer. None
    if the message is no order, or its channel is no reply channel.

    Args:
        data: the message.
        replies: the beginning of the names of reply channels.
    """
    order, _, channel = text_of(data[len(SIGN) :]).partition(" ")
    return (order, channel) if data.startswith(SIGN) and channel.startswith(replies) else None


def sealed(message: bytes, session_id: str, seal: Seal) -> bytes:
    """Returns an order as it is published with secrets: only this worker session accepts it, and only for
    some minutes.
    """
    text = b"%b %d" % (message[len(SIGN) :], clock.now() * 1000)
    return SIGN + seal.close("order", session_id, text)


def opened(data: bytes, session_id: str, seal: Seal) -> bytes:
    """Returns an order as it was before it was sealed.

    Raises:
        NotSigned: it is not signed for this worker session, or is too old.
    """
    text, _, sent = seal.open("order", session_id, data[len(SIGN) :]).rpartition(b" ")
    at = number_in(sent, LATEST)
    if at is None or abs(clock.now() * 1000 - at) > VALID_MS:
        raise NotSigned(
            f"an order to worker {session_id!r} was sent more than {VALID_MS // 60_000} minutes ago by the "
            "clock of its sender",
            "too old",
        )
    return SIGN + text


def parts_of(session_id: str, text: str) -> Iterator[bytes]:
    """Yields an answer as it is published: in parts, each with the session id in front."""
    data = text.encode("utf-8", "replace")[: PART_BYTES * MOST_PARTS]
    pieces = [data[first : first + PART_BYTES] for first in range(0, len(data), PART_BYTES)] or [b""]
    for number, piece in enumerate(pieces):
        yield f"{session_id} {number} {len(pieces)}\n".encode("utf-8", "surrogateescape") + piece
