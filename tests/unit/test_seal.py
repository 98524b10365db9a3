"""What is signed and encrypted: nothing that was changed, copied to another place, or made without a secret
is accepted. No server.
"""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
import traceback
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from asyncq import config, failures, wire
from asyncq.broker.schema.records import Record, status_of
from asyncq.broker.signing.keyring import Keyring
from asyncq.broker.signing.seal import Seal
from asyncq.config import Secret, Settings
from asyncq.errors import DecodeError
from asyncq.outcome import Outcome
from asyncq.serializers import PLAIN_VALUE
from asyncq.wire import NotSigned

if TYPE_CHECKING:
    from collections.abc import Callable

NEW, OLD = "the new secret of this app", "the old secret of this app"
SOON = 1_795_392_354_261


def settings(*secrets: str | bytes, encrypt: bool = False, **others: object) -> Settings:
    return config.load({"secrets": list(secrets or (NEW,)), "encrypt": encrypt, **others}, environ={})


def seal(*secrets: str | bytes, encrypt: bool = False, **others: object) -> Seal:
    return Seal(settings(*secrets, encrypt=encrypt, **others))


@pytest.fixture(params=[False, True], ids=["signed", "encrypted"])
def encrypt(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def job(id: str = "a", **fields: object) -> tuple[wire.Job, bytes]:
    made = wire.Job(id, "mod.add", "mail", b"\x92\x91\x01\x80", "997f", "c", SOON, 60_000)
    for name, value in fields.items():
        setattr(made, name, value)
    return made, wire.encode_job(made)


def ended(letter: str = "S", payload: bytes = b"\x05") -> bytes:
    return wire.encode_ended(wire.Ended(letter, payload, 1, 2, 1, "w", "mod.add", "mail", SOON))


# -- messages --


def test_a_message_comes_back_as_it_was_signed_for_its_id_and_its_queue(encrypt):
    one, (made, message) = seal(encrypt=encrypt), job()
    assert one.open_message("a", "mail", one.message(made, message)) == message


def test_a_message_without_a_signature_is_refused():
    _, message = job()
    for bad in (message, b"", message + b"x" * 40, message[:10]):
        with pytest.raises(NotSigned, match="not signed"):
            seal().open_message("a", "mail", bad)


def test_a_message_is_refused_under_another_id_queue_namespace_or_secret(encrypt):
    one, (made, message) = seal(encrypt=encrypt), job()
    sealed = one.message(made, message)
    for id_, queue in (("b", "mail"), ("a", "other"), ("a.2", "mail"), ("", "mail"), ("mail", "a")):
        with pytest.raises(NotSigned):
            one.open_message(id_, queue, sealed)
    with pytest.raises(NotSigned):
        seal(encrypt=encrypt, namespace="other").open_message("a", "mail", sealed)
    with pytest.raises(NotSigned):
        seal(OLD, encrypt=encrypt).open_message("a", "mail", sealed)


def test_an_id_that_contains_what_follows_it_makes_no_other_text_of_the_same_bytes():
    # Without the length, the id `a mail\n...` with the rest of the message would be signed, too.
    one, (made, message) = seal(), job()
    made.queue = "m"
    sealed = one.message(made, message + b" m\nrest")
    at = sealed.index(b" m\n")
    with pytest.raises(NotSigned):
        one.open_message("a m\n" + sealed[:at].decode("latin-1"), "m", sealed[at + 3 :])


def every_change(data: bytes) -> list[bytes]:
    changed = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(len(data))]
    return [*changed, data[:-1], data[1:], data + b"\0", b"\0" + data]


def test_a_message_with_any_byte_changed_is_refused(encrypt):
    one, (made, message) = seal(encrypt=encrypt), job(parents=("p", "q"), value_template=[0, 1])
    for changed in every_change(one.message(made, message)):
        with pytest.raises(DecodeError):
            one.open_message("a", "mail", changed)


@given(st.binary(max_size=200), st.text(max_size=20), st.text(max_size=20))
def test_no_bytes_that_nobody_has_signed_are_opened(data, id_, place):
    one = seal(NEW, OLD)
    with pytest.raises(DecodeError):
        one.open_message(id_, "mail", data)
    with pytest.raises(DecodeError):
        one.open("item", place, data)
    with pytest.raises(DecodeError):
        one.open_outcome(id_, "S", data)


@given(st.binary(max_size=300), st.sampled_from(["report", "item", "failure", "schedule", "group"]))
def test_everything_that_was_sealed_is_opened_again(data, purpose):
    for encrypt in (False, True):
        one, both = seal(OLD, encrypt=encrypt), seal(NEW, OLD)
        assert both.open(purpose, "place", one.close(purpose, "place", data)) == data


def test_a_job_of_a_schedule_may_have_a_number_behind_its_id_and_no_other_job_may(encrypt):
    one, (made, message) = seal(encrypt=encrypt), job("nightly:20261130T030000Z")
    tick = one.tick(made, message)
    for id_ in (made.id, f"{made.id}.2", f"{made.id}.13"):
        assert one.open_message(id_, "mail", tick) == message
    for id_ in ("nightly:20261201T030000Z", f"{made.id}.2.3", f"{made.id}.x", "other.2"):
        with pytest.raises(NotSigned):
            one.open_message(id_, "mail", tick)
    with pytest.raises(NotSigned):
        one.open_message(f"{made.id}.2", "mail", one.message(made, message))


def test_a_message_that_is_older_than_max_age_is_refused_and_an_operator_may_have_it(monkeypatch):
    one = seal(max_age="1m")
    waiting = (job(), job("b", wait=30_000))
    messages = {made.id: (one.message(made, message), message) for made, message in waiting}

    def at(seconds: float) -> None:
        monkeypatch.setattr("asyncq.broker.signing.seal.clock.now", lambda: SOON / 1000 + seconds)

    at(59)
    assert all(one.open_message(id_, "mail", sealed) == plain for id_, (sealed, plain) in messages.items())
    at(61)
    with pytest.raises(NotSigned, match="older than max_age=60 s") as caught:
        one.open_message("a", "mail", messages["a"][0])
    assert caught.value.reason == "too old"
    assert one.open_message("a", "mail", messages["a"][0], any_age=True) == messages["a"][1]
    assert one.open_message("b", "mail", messages["b"][0]), "it counts from when the job was due"
    at(91)
    with pytest.raises(NotSigned, match="older"):
        one.open_message("b", "mail", messages["b"][0])
    assert seal().open_message("b", "mail", messages["b"][0]), "without the setting it is accepted at any age"


# -- the values that a job gets --


def values(one: Seal, *frames: tuple[str, str, bytes]) -> bytes:
    return b"".join(wire.frame(id_, letter, one.outcome(id_, letter, plain)) for id_, letter, plain in frames)


def test_a_job_gets_the_values_of_the_jobs_for_which_it_waited_and_of_no_others(encrypt):
    one = seal(encrypt=encrypt)
    made, message = job("c", parents=("p", "q"), value_template=[0, 1])
    sealed = one.message(made, message)
    right = values(one, ("p", "S", ended()), ("q", "S", ended(payload=b"\x06")))
    assert one.open_message("c", "mail", sealed, right) == message
    opened = list(wire.split_notification(one.open_values(one.checked_values(made, right))))
    assert opened == [("p", "S", ended()), ("q", "S", ended(payload=b"\x06"))]
    for wrong in (
        values(one, ("q", "S", ended()), ("p", "S", ended())),
        values(one, ("p", "S", ended())),
        values(one, ("p", "S", ended()), ("x", "S", ended())),
        b"",
    ):
        with pytest.raises(NotSigned, match="for which it did not wait"):
            one.open_message("c", "mail", sealed, wrong)


def test_values_that_are_not_signed_or_are_another_end_are_refused():
    one = seal()
    made, _ = job("c", parents=("p",), value_template=0)
    callback, _ = job("e", parents=("p",), value_template="e")
    forged = wire.frame("p", "S", ended())
    moved = wire.frame("p", "S", one.outcome("q", "S", ended()))
    failed = values(one, ("p", "F", ended("F")))
    for target, bad in ((made, forged), (made, moved), (made, failed), (callback, forged)):
        with pytest.raises(NotSigned):
            one.open_values(one.checked_values(target, bad))
    assert one.open_values(one.checked_values(callback, failed)) == wire.frame("p", "F", ended("F"))
    assert one.checked_values(job("x")[0], forged) == b"", "a job that wants no values gets none"


# -- outcomes --


def test_an_outcome_is_that_of_one_job_and_one_end(encrypt):
    one = seal(encrypt=encrypt)
    sealed = one.outcome("a", "S", ended())
    assert one.open_outcome("a", "S", sealed) == ended()
    for id_, letter in (("b", "S"), ("a", "F"), ("a", "C"), ("aS", "")):
        with pytest.raises(NotSigned):
            one.open_outcome(id_, letter, sealed)
    for changed in every_change(sealed):
        with pytest.raises(DecodeError):
            one.open_outcome("a", "S", changed)


def test_the_short_form_of_a_long_failure_is_signed_by_itself(encrypt):
    one = seal(encrypt=encrypt)
    failed = wire.Ended("F", b"x" * 20_000, name="mod.add")
    sealed = one.outcome("a", "F", wire.encode_bad_end(failed, lambda: b"short"))
    assert wire.decode_ended("F", one.open_outcome("a", "F", sealed)).payload == failed.payload
    short, _ = wire.split_short_form(sealed)
    assert len(short) <= 8192
    inherited = one.open_outcome("b", "F", b"^a " + short)  # as a script hands it on
    assert wire.decode_ended("F", inherited).payload == b"short"
    assert wire.decode_ended("F", inherited).member == ("a", "mod.add")


def test_every_failure_that_is_handed_on_in_full_has_room_for_its_signature(encrypt):
    one = seal(encrypt=encrypt)
    for length in range(8000, 8300):
        outcome = wire.encode_bad_end(wire.Ended("F", b"x" * length), lambda: b"short")
        sealed = one.outcome("a", "F", outcome)
        assert sealed[:1] == b"~" or len(sealed) <= 8192, "a script would hand on nothing"


def test_only_a_script_ends_a_job_without_a_signature_and_never_with_a_value():
    one = seal()
    for letter in "FCEX":
        assert one.open_outcome("a", letter, b"") == b""
        assert one.open_outcome("b", letter, b"^a ") == b"^a "
        with pytest.raises(NotSigned):
            one.open_outcome("a", letter, ended(letter))
        with pytest.raises(NotSigned):
            one.open_outcome("b", letter, b"^a " + ended(letter))
    for outcome in (b"", b"^a ", b"^a " + one.outcome("a", "S", ended()), ended()):
        with pytest.raises(NotSigned):
            one.open_outcome("b", "S", outcome)


def test_an_outcome_for_several_jobs_is_no_success(encrypt):
    one = seal(encrypt=encrypt)
    lost = one.shared_outcome("X", ended("X"))
    assert one.open_outcome("a", "X", lost) == one.open_outcome("b", "X", lost) == ended("X")
    for letter in "SFC":
        with pytest.raises(NotSigned):
            one.open_outcome("a", letter, lost)
    with pytest.raises(AssertionError):
        one.shared_outcome("S", ended())


def test_the_record_of_a_forged_outcome_is_that_of_a_job_that_failed_to_be_decoded():
    one = seal()
    head = b"1795-0 w-1 997f "
    assert one.record("a", b"L--- 1795-0 mail 997f c") == b"L--- 1795-0 mail 997f c"
    assert one.record("a", b"T--- 1795-0 w-1 997f") == b"T--- 1795-0 w-1 997f"
    plain = one.record("a", b"S--- " + head + one.outcome("a", "S", ended()))
    assert plain == b"S--- " + head + ended()
    for forged in (b"S--- " + head + ended(), b"S--- 1795-0 w-1 997f", b"F--- " + head + ended("F")):
        record = Record.parse(one.record("a", forged))
        outcome = Outcome("a", record.ended(), PLAIN_VALUE)
        assert outcome.state == "FAILURE"
        assert type(outcome.error) is DecodeError
        assert "not signed" in str(outcome.error)


def test_a_process_without_secrets_says_so_when_it_reads_what_is_signed(encrypt):
    one, (made, message) = seal(encrypt=encrypt), job()
    with pytest.raises(NotSigned, match="no secrets: set ASYNCQ_SECRETS") as caught:
        wire.decode_job("a", "mail", one.message(made, message))
    assert "secrets" in caught.value.reason
    found = status_of(b"S--- 1795-0 w-1 997f " + one.outcome("a", "S", ended()), "a", None)
    assert isinstance(found, wire.Ended)
    assert isinstance(Outcome("a", found, PLAIN_VALUE).error, DecodeError)


# -- what goes with a running job --


def test_reports_errors_and_items_belong_to_one_job_and_one_place(encrypt):
    one = seal(encrypt=encrypt)
    meta = one.meta("a", "1795-0", 1, SOON, "PROGRESS", b"\x01")
    report = b"1795-0 1 %d PROGRESS " % SOON
    assert one.open_report("a", report + meta) == report + b"\x01"
    for id_, bad in (
        ("b", report + meta),
        ("a", b"1795-0 2 %d PROGRESS " % SOON + meta),
        ("a", b"1795-1 1 %d PROGRESS " % SOON + meta),
        ("a", b"1795-0 1 %d DONE " % SOON + meta),
        ("a", report + b"\x01"),
        ("a", b"rubbish"),
    ):
        with pytest.raises(DecodeError):
            one.open_report(id_, bad)
    item = one.item("a", 1, b"\x01")
    for id_, number in (("a", 2), ("b", 1)):
        with pytest.raises(NotSigned):
            one.open_item(id_, number, item)
    failure = one.close("failure", "a", failures.encode(KeyError("x")))
    assert one.opened_failure("a", failure) == failures.encode(KeyError("x"))
    assert one.opened_failure("b", failure) == b""
    reason = one.reason("a", b"too late")
    assert b" " not in reason
    assert one.opened_reason("a", reason.decode()) == "too late"
    assert one.opened_reason("b", reason.decode()) == one.opened_reason("a", "free text") == ""


def test_events_are_opened_and_those_without_data_pass(encrypt):
    one = seal(encrypt=encrypt)
    items = [one.item("a", number, b"\x01" * number) for number in (7, 8)]
    event = b"i7 %d %d\n%b%b" % (*map(len, items), *items)
    assert wire.split_items(one.open_event("a", event)) == (7, [b"\x01" * 7, b"\x01" * 8])
    with pytest.raises(NotSigned):
        one.open_event("a", event.replace(b"i7", b"i6"))
    failure = one.close("failure", "a", b"\x80")
    assert one.open_event("a", b"r1795-0 2 " + failure) == b"r1795-0 2 \x80"
    for plain in (b"l", b"q1795-0", b"n12", b"w3"):
        assert one.open_event("a", plain) == plain
    for forged in (b"r1795-0 2 \x80", b"p1795-0 1 2 PROGRESS \x01", b"i1 1\n\x01"):
        with pytest.raises(DecodeError):
            one.open_event("a", forged)


# -- keys --


def test_the_first_secret_signs_and_all_are_accepted(encrypt):
    old, both, new = (seal(*secrets, encrypt=encrypt) for secrets in ((OLD,), (NEW, OLD), (NEW,)))
    assert both.open("group", "g", old.close("group", "g", b"[]")) == b"[]"
    assert new.open("group", "g", both.close("group", "g", b"[]")) == b"[]"
    for reader, writer in ((old, both), (new, old)):
        with pytest.raises(NotSigned):
            reader.open("group", "g", writer.close("group", "g", b"[]"))
    assert both.names == [new.names[0], old.names[0]]


def test_what_was_signed_for_one_purpose_is_refused_for_every_other(encrypt):
    one = seal(encrypt=encrypt)
    sealed = one.close("group", "a", b"x")
    for purpose in ("report", "item", "failure", "schedule", "history", "order", "answer", "reason"):
        with pytest.raises(NotSigned):
            one.open(purpose, "a", sealed)


def test_a_process_that_only_signs_reads_what_another_one_encrypts_and_the_reverse():
    signs, encrypts = seal(), seal(encrypt=True)
    assert signs.open("item", "a 1", encrypts.item("a", 1, b"x")) == b"x"
    assert encrypts.open("item", "a 1", signs.item("a", 1, b"x")) == b"x"


def test_encrypted_data_show_nothing_of_what_is_in_them_and_are_never_the_same_twice():
    one, made = seal(encrypt=True), wire.Job("a", "mod.add", "mail", b"topsecret", "997f", "c", SOON, 1)
    made.headers = {"tenant": "topsecret"}
    message = one.message(made, wire.encode_job(made))
    assert b"topsecret" not in message
    assert wire.task_name(message) == "mod.add"
    assert len({one.item("a", 1, b"x") for _ in range(1000)}) == 1000


FORKS = """
import os, sys
from asyncq.broker.signing.keyring import Keyring
ring = Keyring([sys.argv[1]], "ns", encrypts=True)
ring.encrypt(b"item", b"", b"x")
child = os.fork()
os.write(1, ring.encrypt(b"item", b"", b"x").hex().encode() + b"\\n")
if child:
    os.waitpid(child, 0)
"""


def test_a_child_after_fork_uses_other_random_bytes_than_its_parent():
    # In a process without threads: pytest may have some.
    done = subprocess.run([sys.executable, "-c", FORKS, NEW], stdout=subprocess.PIPE, check=True, timeout=60)
    one, other = (bytes.fromhex(line) for line in done.stdout.decode().split())
    ring = Keyring([NEW], "ns", encrypts=False)
    assert ring.decrypt(b"item", b"", one) == ring.decrypt(b"item", b"", other) == b"x"
    assert one[:24] != other[:24]


# -- the setting --


@pytest.mark.parametrize(
    ("given_", "problem"),
    [
        ([], "the list of secrets is empty"),
        ([""], "secret 1 has 0 bytes"),
        ("", "secret 1 has 0 bytes"),
        ("aaaaaaaaaaaaaaaa,short", "secret 2 has 5 bytes"),
        ([b"topsecret"], "secret 1 has 9 bytes"),
        ([17], "secret 1 is of type int"),
        (17, "a int holds no secrets"),
        (["\ud800" * 20], "secret 1 is no text"),
    ],
)
def test_a_bad_secret_is_refused_with_a_reason_that_does_not_show_it(given_, problem):
    with pytest.raises(ValueError, match=problem) as caught:
        config.load({"secrets": given_}, environ={})
    assert "topsecret" not in "".join(traceback.format_exception(caught.value))
    assert "AsyncQ(secrets=...)" in str(caught.value)


def test_secrets_come_from_the_environment_with_commas_between_them():
    found = config.load({}, environ={"ASYNCQ_SECRETS": f"{NEW}, {OLD}"}).secrets
    assert [str.encode(one) for one in found] == [NEW.encode(), OLD.encode()]
    assert config.load({}, environ={}).secrets == ()


def test_a_secret_of_bytes_is_that_of_the_same_text_and_any_bytes_may_be_one():
    assert seal(NEW).names == seal(NEW.encode()).names
    assert seal(bytes(range(240, 256)) + b"abc").names != seal(bytes(range(239, 255)) + b"abc").names


@pytest.mark.parametrize("option", [{"encrypt": True}, {"max_age": 5}])
def test_what_needs_secrets_is_refused_without_them(option):
    with pytest.raises(ValueError, match="needs secrets="):
        config.load(option, environ={})
    with pytest.raises(ValueError, match="needs secrets="):
        config.replace(Settings(), option)


def test_settings_that_are_given_on_keep_the_secrets():
    found = settings(NEW, OLD)
    for secrets in (found.secrets, list(found.secrets), dataclasses.asdict(found)["secrets"]):
        again = config.replace(Settings(), {"secrets": secrets})
        assert [str.encode(one) for one in again.secrets] == [NEW.encode(), OLD.encode()]
        assert Seal(again).names == Seal(found).names


def shown_by() -> list[Callable[[object], str]]:
    return [repr, str, "{}".format, "{!r}".format, lambda value: f"{value}", lambda value: "%s" % (value,)]  # noqa: UP031


def test_nothing_that_shows_settings_shows_a_secret():
    found = settings(NEW, OLD)
    for value in (
        found,
        found.secrets,
        found.secrets[0],
        Seal(found),
        Keyring(found.secrets, "n", encrypts=False),
    ):
        for show in shown_by():
            assert NEW not in show(value)
            assert OLD not in show(value)
    assert [name for name in vars(Seal(found)) if NEW in repr(getattr(Seal(found), name))] == []


def test_a_secret_stays_one_when_it_is_copied_and_keys_are_not_pickled():
    secret = Secret(NEW)
    for copied in (copy.copy(secret), copy.deepcopy(secret), pickle.loads(pickle.dumps(secret))):
        assert copied == NEW
        assert repr(copied) == "<secret>"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Keyring([NEW], "n", encrypts=False))


def test_an_app_without_secrets_imports_neither_the_keys_nor_the_ciphers():
    script = "import sys, asyncq.worker.worker, asyncq.broker.broker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, timeout=60)
    names = done.stdout.decode().split()
    assert "asyncq.broker.commands" in names
    assert [name for name in names if name.startswith(("asyncq.broker.signing", "cryptography"))] == []
