"""Values through a real worker: the task gets equal arguments, and its caller gets an equal result."""

from __future__ import annotations

import dataclasses
import enum
from datetime import UTC, datetime
from typing import Annotated, Any

import pydantic
import pytest
from helpers.examples import examples
from hypothesis import HealthCheck, given, settings, strategies as st

from asyncq import AsyncQ, SerializationError, Worker

pytestmark = pytest.mark.anyio


class Step(enum.Enum):
    UP = "up"
    DOWN = "down"


@dataclasses.dataclass
class Price:
    net: float

    def __post_init__(self):
        self.net = round(self.net * 1.19, 2)


class Login(pydantic.BaseModel):
    user: str
    password: Annotated[str, pydantic.PlainSerializer(lambda _: "***")]
    token: pydantic.SecretStr = pydantic.Field(default=pydantic.SecretStr(""), exclude=True)
    at: datetime | None = None


class Logout(pydantic.BaseModel):
    user: str


prices = st.floats(0, 1e6).map(Price)
logins = st.builds(Login, user=st.text(max_size=5), password=st.text(max_size=5)) | st.builds(
    Login,
    user=st.text(max_size=5),
    password=st.text(max_size=5),
    token=st.text(max_size=5).map(pydantic.SecretStr),
    at=st.datetimes(timezones=st.just(UTC)).map(lambda at: at.isoformat()),
)
steps = st.sampled_from(Step)
logouts = st.builds(Logout, user=st.text(max_size=5))
one = prices | logins | logouts | steps | st.lists(steps | prices, max_size=3) | st.sets(steps)
values = one | st.dictionaries(st.text(max_size=3), one, max_size=2)
Any_ = Price | Login | Logout | Step | list[Step | Price] | set[Step]
Same = Any_ | dict[str, Any_]
Wide = dict[str, set[Step] | Logout | Step | list[Price | Step] | Login | Price] | Logout | Any_


def received(value: Any) -> Any:
    if isinstance(value, pydantic.BaseModel):
        return type(value), vars(value), value.model_fields_set
    if isinstance(value, (list, dict)):
        return type(value), [received(item) for item in (value.items() if isinstance(value, dict) else value)]
    return (
        (type(value), [received(item) for item in value])
        if isinstance(value, tuple)
        else (type(value), value)
    )


async def test_random_values_are_equal_after_their_way_through_a_worker(make_app):
    app = make_app()

    @app.task
    async def give(value: Same) -> Wide:
        return value

    async with app, Worker(app):

        async def check(value: Any) -> None:
            assert received(await give.options(wait=30).call(value)) == received(value)

        await _with_examples(check)


async def _with_examples(check) -> None:
    """Draws the examples before the test, because hypothesis runs no coroutine."""
    drawn: list[Any] = []

    @settings(
        max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(values)
    def draw(value: Any) -> None:
        drawn.append(value)

    draw()
    for value in drawn:
        await check(value)


async def test_supported_classes_work_at_every_depth_and_others_are_refused_at_the_call(make_app):
    app = make_app(types=[Price])

    @app.task
    async def give(value: Any) -> Any:
        return value

    async with app, Worker(app):
        assert received(await give.options(wait=30).call([Price(1.0)])) == received([Price(1.0)])
        with pytest.raises(SerializationError, match=r"args\[0\]\[0\]: .*Logout cannot travel"):
            await give.delay([Logout(user="a")])


async def test_an_app_that_trusts_no_models_validates_arguments_and_results(make_app):
    app = make_app(trust_models=False)

    @app.task
    async def give(value: Price) -> float:
        return value.net

    async with app, Worker(app):
        assert await give.options(wait=30).call(Price(100)) == 141.61


def test_the_text_of_a_call_does_not_show_its_secrets():
    app = AsyncQ("memory://")

    @app.task
    async def enter(login: Login) -> None: ...

    shown = repr(enter.s(Login(user="u", password="p", token=pydantic.SecretStr("hidden"))))
    assert "user='u'" in shown
    assert "hidden" not in shown
    assert "token=***" in shown
