"""What a task declares with `Depends` is checked at its registration, and is no part of its calls."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import fastapi
import pytest

import asyncq
from asyncq import AsyncQ, Depends
from asyncq.dependencies.injection import Injection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nowhere import Missing  # type: ignore[import-not-found]


@pytest.fixture
def app() -> AsyncQ:
    return AsyncQ("redis://nowhere")


def get_number() -> int:
    return 7


def get_text(number: int = Depends(get_number)) -> str:
    return str(number)


class Pool:
    def __init__(self, text: str = Depends(get_text)) -> None:
        self.text = text


def test_the_worker_puts_each_instance_into_its_place():
    def f(
        a: int, b: str = Depends(get_text), *rest: int, c: int = 3, d: int = Depends(get_number)
    ) -> None: ...

    injection = Injection.of(f)
    assert injection is not None
    assert list(injection.parameters) == ["b", "d"]
    given = {"b": "B", "d": "D"}
    assert injection.placed([1], {}, given) == ([1], {"b": "B", "d": "D"})
    assert injection.placed([1, 2, 3], {"c": 4}, given) == ([1, "B", 2, 3], {"c": 4, "d": "D"})
    assert injection.placed([], {"a": 1}, given) == ([], {"a": 1, "b": "B", "d": "D"})
    assert Injection.of(get_number) is None


def test_a_dependency_is_no_part_of_a_call(app):
    @app.task(name="f")
    async def f(x: int, db: Pool = Depends(Pool), y: int = 2) -> int:
        return x

    assert str(inspect.signature(f.delay)).startswith("(x: 'int', y: 'int' = 2)")
    assert set(typing.get_type_hints(f.delay)) == {"x", "y", "return"}
    assert f.arguments.loads(f.builder.body((1, 5), {})) == ([1, 5], {})
    for wrong in ({"db": Pool("x")}, {"db": None}):
        with pytest.raises(TypeError, match="'db'; db: the worker fills what has Depends"):
            f.builder.body((1,), wrong)
        with pytest.raises(TypeError, match="db: the worker fills"):
            f.s(1, **wrong)
    with pytest.raises(TypeError, match="too many"):
        f.builder.body((1, 2, 3), {})
    assert repr(f) == "<Task f(x: 'int', y: 'int' = 2) -> 'int'>"


@pytest.mark.anyio
async def test_a_call_of_the_function_itself_may_pass_it(app):
    @app.task(name="f")
    async def f(x: int, db: Pool = Depends(Pool)) -> str:
        return f"{x} {db.text}"

    assert await f(1, db=Pool("mine")) == "1 mine"
    with pytest.raises(AttributeError, match=r"has no 'text'.* must pass the value"):
        await f(1)


def test_an_annotation_that_is_imported_for_types_only_is_no_error_for_a_dependency(app):
    def get() -> Any: ...

    @app.task(name="f")
    async def f(x: int, db: Missing = Depends(get)) -> int:
        return x

    f.resolve()
    assert f.builder.body((1,), {})
    with pytest.raises(TypeError, match="Missing"):

        @app.task(name="g")
        async def g(x: int, db: Missing) -> int:
            return x


def test_annotations_that_are_defined_locally_are_found(app):
    @dataclasses.dataclass
    class Local:
        x: int

    @app.task(name="f")
    async def f(local: Local, db: Pool = Depends(Pool)) -> Local:
        return local

    [local], _ = f.arguments.loads(f.builder.body((Local(1),), {}))
    assert local == Local(1)


def test_functions_behind_decorators_and_partials_may_have_dependencies(app):
    def decorated(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @decorated
    def f(x: int, db: Pool = Depends(Pool)) -> int:
        return x

    def g(x: int, y: int, db: Pool = Depends(Pool)) -> int:
        return x

    class Callable:
        def __call__(self, x: int, db: Pool = Depends(Pool)) -> int:
            return x

    for name, function in (("f", f), ("g", functools.partial(g, 1)), ("h", Callable())):
        task = app.task(name=name)(function)
        assert list(task.injection.parameters) == ["db"]
        assert "db" not in task.builder.signature.parameters
        task.resolve()
        assert task.builder.body((1,), {})


def test_what_cannot_be_filled_is_refused_at_registration(app):
    def needs(x: int) -> int:
        return x

    def below(y: int = Depends(needs)) -> int:
        return y

    @dataclasses.dataclass
    class Fields:
        x: int

    for function in (needs, below, Fields):
        with pytest.raises(TypeError, match="has a parameter 'x' that nothing fills"):

            @app.task(name="f")
            async def f(x: int, y: int = Depends(function)) -> None: ...


def test_wrong_declarations_are_refused(app):
    with pytest.raises(TypeError, match="do not call it"):
        Depends(get_number())
    with pytest.raises(ValueError, match='use "job" or "worker"'):
        Depends(get_number, scope="request")

    with pytest.raises(TypeError, match=r"make it the default: db: \.\.\. = Depends"):

        @app.task(name="annotated")
        async def annotated(db: Annotated[Pool, Depends(Pool)]) -> None: ...

    with pytest.raises(TypeError, match="put it behind the `/`"):

        @app.task(name="positional")
        async def positional(db: Pool = Depends(Pool), /) -> None: ...

    with pytest.raises(ValueError, match=r"a process gets no dependencies \(db\)"):

        @app.task(name="process", executor="process")
        def process(db: Pool = Depends(Pool)) -> None: ...


def test_the_depends_of_fastapi_is_refused_in_a_task_and_in_a_dependency(app):
    of_fastapi: Any = fastapi.Depends(Pool)
    security: Any = fastapi.Security(get_number)

    with pytest.raises(TypeError, match=r"'db' has FastAPI's Depends.*from asyncq import Depends"):

        @app.task(name="task")
        async def task(db: Pool = of_fastapi) -> None: ...

    with pytest.raises(TypeError, match=r"'user' has FastAPI's Depends"):

        @app.task(name="secured")
        async def secured(user: str = security) -> None: ...

    def get_session(pool: Pool = of_fastapi) -> Pool:
        return pool

    with pytest.raises(TypeError, match=r"'pool' has FastAPI's Depends"):

        @app.task(name="inner")
        async def inner(db: Pool = Depends(get_session)) -> None: ...


def test_what_belongs_to_the_worker_cannot_depend_on_a_job(app):
    def get_shared(number: int = Depends(get_number)) -> int:
        return number

    def get_id(job: asyncq.Context = Depends(asyncq.current, scope="worker")) -> str:
        return job.id

    for function in (get_shared, get_id):
        with pytest.raises(ValueError, match="exists for one job only"):

            @app.task(name="f")
            async def f(x: Any = Depends(function, scope="worker")) -> None: ...


def test_classes_of_pydantic_may_be_dependencies(app):
    import pydantic

    class Settings(pydantic.BaseModel):
        url: str = "x"

    @app.task(name="f")
    async def f(settings: Settings = Depends(Settings)) -> str:
        return settings.url

    assert f.apply().result == "x"


def test_an_override_that_would_wait_for_itself_is_refused(app):
    def fake_number(text: str = Depends(get_text)) -> int:
        return int(text)

    with pytest.raises(ValueError, match="depend on itself"), app.override({get_number: fake_number}):
        pass
    with pytest.raises(TypeError, match="write lambda: value"), app.override({get_number: 3}):
        pass


def test_overrides_hold_inside_of_their_block_and_add_up(app):
    @app.task(name="f")
    def f(number: int = Depends(get_number), text: str = Depends(get_text)) -> list[Any]:
        return [number, text]

    def fake_text(number: int = Depends(get_number)) -> Iterator[str]:
        yield f"fake {number}"

    assert f.apply().result == [7, "7"]
    with app.override({get_number: lambda: 8}):
        assert f.apply().result == [8, "8"]
        with app.override({get_text: fake_text}):
            assert f.apply().result == [8, "fake 8"]
        assert f.apply().result == [8, "8"]
    assert f.apply().result == [7, "7"]


def test_apply_makes_and_cleans_up_what_belongs_to_a_worker_for_each_call(app):
    log: list[str] = []

    async def get_pool():
        log.append("open")
        yield "pool"
        log.append("close")

    @app.task(name="loop")
    async def loop(pool: str = Depends(get_pool, scope="worker")) -> str:
        log.append(pool)
        return pool

    @app.task(name="thread")
    def thread(pool: str = Depends(get_pool, scope="worker")) -> str:
        log.append(pool)
        return pool

    for task in (loop, thread):
        assert task.apply().result == "pool"
        assert log == ["open", "pool", "close"]
        log.clear()


def test_a_key_stands_for_the_arguments_without_the_dependencies(app):
    @app.task(name="f")
    async def f(x: int, db: Pool = Depends(Pool)) -> int:
        return x

    builder = f.options(key="k").builder
    first, second = (
        builder.job(builder.body(args, kwargs), "") for args, kwargs in (((1,), {}), ((), {"x": 1}))
    )
    assert first.id == second.id
    assert first.request_id.partition(".")[0] == second.request_id.partition(".")[0]


def test_an_override_of_a_function_on_which_no_task_depends_is_a_warning():
    app = AsyncQ("memory://")

    @app.task(name="count")
    async def count(number: int = Depends(get_number)) -> None: ...

    @contextmanager
    def elsewhere() -> Iterator[None]:
        yield

    def get_number_again() -> int:
        return 1

    get_number_again.__qualname__ = get_number.__qualname__
    with (
        pytest.warns(
            UserWarning, match="no effect for .*elsewhere, because .*; dependencies are: get_number"
        ) as seen,
        app.override({elsewhere: lambda: 1}),
    ):
        pass
    assert seen[0].filename == __file__
    doubled = pytest.warns(UserWarning, match="another function of this name is a dependency")
    with doubled, app.override({get_number_again: lambda: 1}):
        pass
    too_early = pytest.warns(UserWarning, match="no task that is registered by now has dependencies")
    with too_early, AsyncQ("memory://").override({get_number: lambda: 1}):
        pass


def test_what_the_overriding_function_depends_on_may_be_overridden_without_a_warning():
    app = AsyncQ("memory://")

    @app.task(name="count")
    async def count(number: int = Depends(get_number)) -> None: ...

    def other() -> int:
        return 1

    def instead(number: int = Depends(other)) -> int:
        return number

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with app.override({get_number: instead, other: lambda: 2}):
            pass


def test_too_many_positional_arguments_name_the_task_what_a_caller_gives_and_what_the_worker_fills():
    app = AsyncQ("memory://")

    @app.task(name="shop.rename")
    async def rename(id: int, number: int = Depends(get_number), *, name: str = "") -> None: ...

    with pytest.raises(TypeError) as caught:
        rename.s(1, 2)
    signature = str(rename.builder.signature)
    assert "number" not in signature
    assert str(caught.value) == (
        f"shop.rename{signature}: too many positional arguments; "
        "number: the worker fills what has Depends(...)"
    )
    assert rename.builder.injection is not None
    with pytest.raises(TypeError) as caught:
        rename.builder.injection.placed([1, 2], {}, {"number": 3})
    assert str(caught.value).startswith(f"shop.rename{signature}: 2 positional arguments were sent")
    assert "it takes 1 at most; number: the worker fills" in str(caught.value)
