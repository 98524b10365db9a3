"""What a signature costs: microseconds for each job, on the side of the client and on that of the worker.

    python benchmarks/signing.py [--times N] [--bytes N]

A job is signed by its client and checked by its worker; its outcome is signed by the worker and checked by
the client. The sum of the four is what a job costs. HMAC-SHA256 stands beside it, for docs/design.md.
"""

import argparse
import hmac
import timeit
from collections.abc import Callable

from asyncq import config, wire
from asyncq.broker.signing.keyring import Keyring, check
from asyncq.broker.signing.seal import Seal
from asyncq.errors import BrokerNotConfigured

REPEAT = 7
SECRET = "a secret for this measurement"


def measure(name: str, seal: Seal, job: wire.Job, outcome: bytes, times: int) -> None:
    """Prints what each of the four steps takes, and their sum."""
    message = wire.encode_job(job)
    sealed, stored = seal.message(job, message), seal.outcome(job.id, "S", outcome)
    steps = {
        "client signs the message": lambda: seal.message(job, message),
        "worker checks the message": lambda: seal.open_message(job.id, job.queue, sealed, b""),
        "worker signs the outcome": lambda: seal.outcome(job.id, "S", outcome),
        "client checks the outcome": lambda: seal.open_outcome(job.id, "S", stored),
    }
    took = {step: microseconds(call, times) for step, call in steps.items()}
    for step, each in took.items():
        print(f"{name}: {step}  {each:.2f} us")
    longer = f"{len(sealed) - len(message)} and {len(stored) - len(outcome)} bytes more"
    print(f"{name}: a job  {sum(took.values()):.2f} us; {longer}")


def microseconds(call: Callable[[], object], times: int) -> float:
    return min(timeit.repeat(call, number=times, repeat=REPEAT)) / times * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures what a signature costs.")
    parser.add_argument("--times", type=int, default=2_000, help="calls of each measurement")
    parser.add_argument("--bytes", type=int, default=150, help="of the arguments, and of the value")
    given = parser.parse_args()
    body = wire.packed(b"x" * given.bytes)
    id_, at = "a4627e0fac48cbb04c08e594", 1_795_392_354_261
    job = wire.Job(id_, "shop.add", "default", body, "997f8317", "c", at, 1)
    outcome = wire.encode_ended(wire.Ended("S", body, 1, 2, 1, "worker", job.name, job.queue, at))
    print(f"{given.bytes} bytes of arguments and of a value; best of {REPEAT} times {given.times:,}")
    for name, encrypt in (("signed", False), ("encrypted", True)):
        settings = config.load({"secrets": [SECRET], "encrypt": encrypt}, environ={})
        try:
            measure(name, Seal(settings), job, outcome, given.times)
        except BrokerNotConfigured as error:  # the extra is not installed
            print(f"{name}: {error}")
    text, signers = b"x" * 300, Keyring([SECRET], "asyncq", encrypts=False).signers(b"job")
    one = signers[0].copy()
    one.update(text)
    mac = one.digest()
    took = microseconds(lambda: check(signers, mac, text), given.times)
    print(f"keyed BLAKE2b of 300 bytes, checked  {took:.2f} us")
    took = microseconds(lambda: hmac.digest(b"k" * 32, text, "sha256"), given.times)
    print(f"hmac.digest with SHA-256 of 300 bytes  {took:.2f} us")


if __name__ == "__main__":
    main()
