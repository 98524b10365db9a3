"""The bytes on the wire: a new version must be able to read what an older one has stored.

`python tests/unit/test_golden.py` writes the files again. If a file changes, `wire` needs a new schema,
unless the file only grew.
"""

import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.value_kinds import KINDS

from asyncq import failures, wire
from asyncq.serializers import ArgumentCodec, ValueCodec

FOLDER = Path(__file__).parent / "golden"


def _call(x: int, *, by: str = ""): ...


JOB = wire.Job(
    "id",
    "shop.charge",
    "default",
    b"\x92\x91\x01\x80",
    "nonce",
    "{a:0}:c:1",
    1_700_000_000_000,
    3_600_000,
)
FULL = wire.Job(
    *(JOB.id, JOB.name, JOB.queue, JOB.body, JOB.request_id, JOB.channel, JOB.enqueued, JOB.result_ttl),
    expires=1,
    ignore_result=True,
    parent_id="p",
    root_id="r",
    headers={"a": 1},
    deadline=2,
    timeout=3,
    ancestors=["b"],
    value_template=[0, [1]],
    dependents=["c"],
    priority=-1,
)


def messages() -> dict[str, bytes]:
    ended = (1, 2, 1, "w", "shop.charge", "default", 0, ["child"])
    return {
        "arguments": ArgumentCodec(_call).dumps((1,), {"by": "x"}),
        "message": wire.encode_job(JOB),
        "message with all that it may have": wire.encode_job(FULL),
        "outcome, succeeded": wire.encode_ended(wire.Ended("S", b"\x08", *ended)),
        "outcome, failed": wire.encode_ended(wire.Ended("F", b"failure", *ended)),
        "outcome, revoked": wire.encode_ended(wire.Ended("C", b"why", *ended)),
        "outcome with arguments": wire.encode_ended(wire.Ended("S", b"\x08", *ended, b"\x92\x90\x80")),
        "batch": wire.encode_batch("{a:0}:c:1", b"", ["id", 1, b"m"]),
    }


def exceptions() -> dict[str, bytes]:
    detailed = OSError(2, "no such file", "a.txt")
    detailed.add_note("a note")
    detailed.code = 7  # type: ignore[attr-defined]
    detailed.__cause__ = KeyError("k")
    group = ExceptionGroup("several", [ValueError("no", 1)])
    group.__context__ = group.exceptions[0]
    made = (ValueError("no", 1), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), detailed, group)
    return {type(one).__name__: failures.encode(one) for one in made}


def values() -> dict[str, bytes]:
    return {kind.name: ValueCodec(kind.annotation).dumps(kind.value) for kind in KINDS}


def written(packed: dict[str, bytes]) -> str:
    return "".join(f"{name}\n    {data!r}\n" for name, data in packed.items())


FILES = {"messages.txt": messages, "values.txt": values, "exceptions.txt": exceptions}


@pytest.mark.parametrize("name", FILES)
def test_this_version_writes_the_bytes_of_the_golden_file(name):
    assert written(FILES[name]()) == (FOLDER / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_value_of_each_kind_is_decoded_equal(kind):
    codec = ValueCodec(kind.annotation)
    read = codec.loads(codec.dumps(kind.value))
    assert read == kind.value
    assert type(read) is type(kind.value)


def test_every_message_of_the_golden_file_can_be_decoded():
    packed = messages()
    assert wire.decode_job("id", "default", packed["message"]) == JOB
    assert wire.decode_job("id", "default", packed["message with all that it may have"]) == FULL
    for letter, name in (("S", "succeeded"), ("F", "failed"), ("C", "revoked")):
        assert wire.decode_ended(letter, packed[f"outcome, {name}"]).name == "shop.charge"
    assert wire.decode_batch(packed["batch"])[2] == ["id", 1, b"m"]


if __name__ == "__main__":
    for file, made in FILES.items():
        (FOLDER / file).write_text(written(made()), encoding="utf-8")
