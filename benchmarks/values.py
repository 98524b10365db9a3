"""Measures what it costs to encode values and to decode them: `python benchmarks/values.py`.

Prints microseconds of processor time for encoding and decoding the arguments of one call, by kind of value;
and for an exception, from the worker to the caller. Each figure is the smallest of many, because other load
of the machine can only add time. With BASELINE=PATH, another checkout is measured in turn with this one, and
the ratios are printed. Needs pydantic.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROUNDS = 7
BODY = """
import datetime as dt, enum, gc, json, sys, time, uuid
from dataclasses import dataclass
sys.path.insert(0, sys.argv[1])
import asyncq
assert asyncq.__file__.startswith(sys.argv[1]), asyncq.__file__
from asyncq import failures
from asyncq.serializers import ArgumentCodec
from pydantic import BaseModel

class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"

@dataclass
class Point:
    x: int
    y: int
    label: str
    weight: float
    ok: bool

@dataclass
class Path:
    points: list[Point]

class Order(BaseModel):
    id: int
    name: str
    price: float
    paid: bool
    note: str | None

class Cart(BaseModel):
    owner: str
    orders: list[Order]

def plain(a: int, b: str): ...
def lists(a: list[int], b: dict[str, str]): ...
def times(a: dt.datetime, b: uuid.UUID): ...
def colours(a: Colour, b: Colour | None): ...
def point(a: Point): ...
def path(a: Path): ...
def order(a: Order): ...
def cart(a: Cart): ...

points = [Point(i, i, "p", 0.5, True) for i in range(100)]
orders = [Order(id=i, name="n", price=1.5, paid=True, note=None) for i in range(100)]
CALLS = {
    "an int and a str": (plain, (1, "two")),
    "a list of 100 ints, a dict of 100": (lists, (list(range(100)), {str(i): "v" for i in range(100)})),
    "a datetime and a UUID": (times, (dt.datetime.now(dt.timezone.utc), uuid.uuid4())),
    "two enum members": (colours, (Colour.RED, Colour.BLUE)),
    "a dataclass of 5 fields": (point, (points[0],)),
    "a dataclass with a list of 100": (path, (Path(points),)),
    "a model of 5 fields": (order, (orders[0],)),
    "a model with a list of 100": (cart, (Cart(owner="o", orders=orders),)),
}

def round_trip(function, args):
    codec = ArgumentCodec(function)
    return lambda: codec.loads(codec.dumps(args, {}))

def failure():
    try:
        raise ValueError("no such luck", 1)
    except ValueError as error:
        return failures.decode(failures.encode(error)).rebuild()

def least(call):
    call()
    started = time.process_time()
    call()
    count = max(1, int(0.005 / max(time.process_time() - started, 1e-7)))
    best = 1e9
    for _ in range(30):
        started = time.process_time()
        for _ in range(count):
            call()
        best = min(best, (time.process_time() - started) / count)
    return best * 1e6

gc.disable()
found = {name: least(round_trip(*call)) for name, call in CALLS.items()}
found["a ValueError"] = least(failure)
print(json.dumps(found))
"""


def measured(checkout: Path) -> dict[str, float]:
    """Returns microseconds by kind of value, measured in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", BODY, str(checkout)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    checkouts = {"this": HERE.parent}
    if "BASELINE" in os.environ:
        checkouts["baseline"] = Path(os.environ["BASELINE"])
    best: dict[str, dict[str, float]] = {name: {} for name in checkouts}
    for _ in range(ROUNDS):
        for name, checkout in checkouts.items():
            for kind, time in measured(checkout).items():
                best[name][kind] = min(time, best[name].get(kind, time))
    for kind, this in best["this"].items():
        line = f"{kind:36} {this:9.2f} us"
        if "baseline" in best:
            baseline = best["baseline"][kind]
            line += f"   baseline {baseline:9.2f} us   ratio {this / baseline:5.2f}"
        print(line)


if __name__ == "__main__":
    main()
