"""Two versions of the classes of one program: callers have the first, a worker has the second.

`helpers.second_version` is that worker process. Each version is a class that has the program's classes as
attributes. `FIRST` and `SECOND` give the type of each task by the task's name.
"""

from __future__ import annotations

import enum
import types
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003  pydantic resolves it
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

import pydantic

if TYPE_CHECKING:
    from asyncq import AsyncQ

T = TypeVar("T")


class First:
    """The version of the calling process."""

    @dataclass
    class Order:
        number: int

    @dataclass
    class Price:
        net: int

    @dataclass
    class Weight:
        grams: int

    @dataclass
    class Old:
        name: str

    @dataclass(frozen=True, slots=True)
    class Point:
        x: int
        y: int

    class Login(pydantic.BaseModel):
        user: str
        _tries: int = pydantic.PrivateAttr(default=0)

    class Patch(pydantic.BaseModel):
        title: str = ""
        text: str = ""

    @dataclass
    class Email:
        to: str

    @dataclass
    class Sms:
        to: str

    class Note(pydantic.BaseModel):
        about: First.Email | First.Sms

    class Step(enum.Enum):
        UP = "up"
        DOWN = "down"

    class Size(NamedTuple):
        width: int

    class Box(pydantic.BaseModel, Generic[T]):
        item: T

    class Failed(LookupError):
        def __init__(self, text: str, *, code: int) -> None:
            super().__init__(text)
            self.code = code

    class Moved(Exception):
        pass


class Second:
    """The version of the worker."""

    @dataclass
    class Order:
        number: int
        paid: bool = False

    @dataclass
    class Price:
        net: str

    @dataclass
    class Weight:
        grams: int | None

    @dataclass
    class New:
        asyncq_alias: ClassVar[str] = "Old"
        name: str

    @dataclass
    class Point:
        y: int
        x: int
        label: str = field(init=False, default="-")

    class Login(pydantic.BaseModel):
        user: str
        at: datetime | None = None
        _tries: int = pydantic.PrivateAttr(default=7)

    @dataclass
    class Patch:
        title: str
        text: str = ""

    Email, Sms, Box = First.Email, First.Sms, First.Box

    class Note(pydantic.BaseModel):
        about: Second.Email
        pages: int = 1

    class Step(enum.Enum):
        HIGH = "up"
        LOW = "down"
        STAY = "stay"

    class Size(NamedTuple):
        width: int
        height: int = 1

    class Failed(LookupError):
        def __init__(self, text: str, *, code: int, where: str = "here") -> None:
            super().__init__(text)
            self.code = code
            self.where = where

    class Moved(KeyError):
        def __str__(self) -> str:
            return "moved"


for _version in (First, Second):
    for _cls in vars(_version).values():
        if isinstance(_cls, type):
            _cls.__module__, _cls.__qualname__ = "shop", _cls.__name__


def shop(version: type) -> types.ModuleType:
    """Returns the module `shop`, to which the classes claim to belong: exceptions are looked up in it."""
    module = types.ModuleType("shop")
    vars(module).update(vars(version))
    return module


First.Note.model_rebuild(_types_namespace={"First": First})
Second.Note.model_rebuild(_types_namespace={"Second": Second})

FIRST: dict[str, Any] = {
    "order": First.Order,
    "orders": list[dict[str, First.Order]] | None,
    "price": First.Price,
    "weight": First.Weight,
    "old": First.Old | None,
    "point": First.Point,
    "login": First.Login,
    "patch": First.Patch,
    "union": First.Email | First.Sms,
    "one": First.Email | list[First.Email],
    "note": First.Note,
    "step": First.Step,
    "size": First.Size,
    "box": First.Box[int],
    "any": Any,
}
SECOND: dict[str, Any] = {
    "order": Second.Order,
    "orders": list[dict[str, Second.Order]] | None,
    "price": Second.Price,
    "weight": Second.Weight,
    "old": Second.New | int | None,
    "point": Second.Point,
    "login": Second.Login,
    "patch": Second.Patch,
    "union": None | Second.Sms | str | Second.Email,
    "one": Second.Email,
    "note": Second.Note,
    "step": Second.Step,
    "size": Second.Size,
    "box": Second.Box[int | str],
    "any": Second.Order,
}


def register(app: AsyncQ, hints: dict[str, Any], version: Any) -> SimpleNamespace:
    """Registers a task for each type, which returns the worker's `repr` of its value, and the value."""
    tasks = SimpleNamespace(**{name: give_back(app, name, hint) for name, hint in hints.items()})

    async def fail(name: str) -> None:
        raise version.Failed("no", code=404) if name == "Failed" else version.Moved("no")

    async def make(number: int) -> Any:
        return version.Order(number)

    async def items(number: int) -> Any:
        for item in (number, version.Order(number), number + 1):
            yield item

    fail.__annotations__ = {"name": str, "return": None}
    make.__annotations__ = {"number": int, "return": version.Order}
    items.__annotations__ = {"number": int, "return": AsyncIterator[version.Order | int]}
    tasks.fail = app.task(name="fail")(fail)
    tasks.make = app.task(name="make")(make)
    tasks.items = app.task(name="items")(items)
    return tasks


def give_back(app: AsyncQ, name: str, hint: Any) -> Any:
    """Registers a task that returns the `repr` of a value of a type, and the value."""

    async def give(value: Any) -> Any:
        return repr(value), value

    return app.task(name=name)(annotated(give, hint))


def annotated(give: Any, hint: Any) -> Any:
    """Annotates a function that takes a value of a type and returns a text and the value."""
    give.__annotations__ = {"value": hint, "return": tuple[str, hint]}
    return give
