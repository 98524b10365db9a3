"""How annotations of tasks are resolved, and which error names an annotation that cannot be resolved."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import sys
import textwrap
import types
import weakref
from datetime import datetime

import pytest

from asyncq import AsyncQ
from asyncq.serializers.hints import hints_of


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes the modules of a package `hinted`, and imports one of them."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    folder = tmp_path / "hinted"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "itsapp.py").write_text("from asyncq import AsyncQ\napp = AsyncQ('memory://')\n")
    (folder / "models.py").write_text("class Order:\n    class Line: ...\nclass Item: ...\n")

    def write(name, source):
        (folder / f"{name}.py").write_text(HEAD + textwrap.dedent(source))
        importlib.invalidate_caches()
        return importlib.import_module(f"hinted.{name}")

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "hinted"]:
        del sys.modules[name]


HEAD = """from __future__ import annotations
from typing import TYPE_CHECKING
from hinted.itsapp import app
"""
TASK = "@app.task\ndef buy({}) -> None: ...\n"


@pytest.mark.parametrize(
    ("statement", "annotation", "expected"),
    [
        ("from collections.abc import Sequence", "Sequence[int]", "collections.abc.Sequence[int]"),
        ("from collections.abc import Sequence as S", "S[int]", "collections.abc.Sequence[int]"),
        ("from datetime import datetime", "datetime | None", "datetime.datetime | None"),
        ("import datetime as dt", "dt.datetime", "<class 'datetime.datetime'>"),
        ("import collections.abc", "collections.abc.Sequence[int]", "collections.abc.Sequence[int]"),
        ("from hinted.itsapp import AsyncQ", "list[AsyncQ]", "list[asyncq.app.AsyncQ]"),
        ("from .itsapp import AsyncQ", "list[AsyncQ]", "list[asyncq.app.AsyncQ]"),
        ("from . import itsapp", "list[itsapp.AsyncQ]", "list[asyncq.app.AsyncQ]"),
    ],
)
def test_a_name_imported_only_for_type_checkers_is_found_in_the_loaded_module(
    package, statement, annotation, expected
):
    module = package("tasks", f"if TYPE_CHECKING:\n    {statement}\n" + TASK.format(f"x: {annotation}"))
    assert str(hints_of(module.buy.function)["x"]) == expected


@pytest.mark.parametrize(
    ("statement", "annotation"),
    [
        ("from hinted.models import Order", "Order"),
        ("from .models import Order", "list[Order]"),
        ("from hinted.models import Order", "Order.Line"),
        ("import hinted.models as m", "m.Order"),
        ("from hinted.models import Item, Order", "dict[str, 'Order'] | None"),
    ],
)
@pytest.mark.parametrize("test", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_a_name_of_a_module_that_is_not_loaded_is_refused_with_the_import_to_write(
    package, statement, annotation, test
):
    with pytest.raises(TypeError) as caught:
        package(
            "tasks",
            f"import typing\nif {test}:\n    {statement}\n" + TASK.format(f"n: int, order: {annotation}"),
        )
    text = str(caught.value)
    name = "m" if " as m" in statement else "Order"
    assert f"the annotation of the parameter 'order' of hinted.tasks.buy uses {name}, which " in text
    assert "tasks.py imports under `if TYPE_CHECKING:` only" in text
    assert text.endswith(statement.replace("Item, ", ""))


def test_the_annotation_of_the_result_is_checked_too(package):
    with pytest.raises(TypeError, match="the annotation of the result of hinted"):
        package(
            "tasks",
            "if TYPE_CHECKING:\n    from .models import Order\n@app.task\nasync def f() -> Order: ...",
        )


@pytest.mark.parametrize(
    "block",
    [
        "if not TYPE_CHECKING:\n    pass\nelse:\n    from .models import Order\n",
        "try:\n    if TYPE_CHECKING:\n        from .models import Order\nfinally:\n    pass\n",
        "if 0:\n    pass\nelif TYPE_CHECKING:\n    from .models import Order\n",
    ],
)
def test_a_block_for_type_checkers_is_found_in_each_form(package, block):
    with pytest.raises(TypeError, match="under `if TYPE_CHECKING:` only"):
        package("tasks", block + TASK.format("x: Order"))


@pytest.mark.parametrize(
    "later",
    ["class Order: ...", "from hinted.models import Order", "Order = int", "if True:\n    class Order: ..."],
)
def test_a_name_that_is_defined_later_in_the_module_is_resolved_at_first_use(package, later):
    declared = "if TYPE_CHECKING:\n    from .models import Order\n"
    for name, head in (("plain", ""), ("declared", declared)):
        module = package(name, f"{head}{TASK.format('x: Order')}{later}\n")
        assert hints_of(module.buy.function)["x"] is module.Order


def test_modules_that_import_each_other_may_use_names_that_are_not_defined_yet(package, tmp_path):
    (tmp_path / "hinted" / "shop.py").write_text("import hinted.tasks\nclass Order: ...\n")
    (tmp_path / "hinted" / "tasks.py").write_text(
        f"{HEAD}if TYPE_CHECKING:\n    from hinted.shop import Order\n" + TASK.format("x: Order")
    )
    importlib.invalidate_caches()
    shop = importlib.import_module("hinted.shop")
    assert hints_of(sys.modules["hinted.tasks"].buy.function)["x"] is shop.Order


def test_an_undefined_name_is_an_error_at_the_first_call(package):
    module = package("tasks", TASK.format("order: Ordr"))
    text = r"parameter 'order' of hinted\.tasks\.buy uses Ordr, which is not defined in .*tasks\.py"
    for _ in range(2):
        with pytest.raises(TypeError, match=text):
            module.buy.builder.body((1,), {})
    with pytest.raises(TypeError, match="uses Ordr"):
        module.buy.apply((1,))


@pytest.mark.parametrize("annotation", ["'the order to buy'", "1 + 1", "print"])
def test_an_annotation_that_is_not_a_type_is_ignored(package, annotation):
    module = package("tasks", TASK.format(f"x: {annotation}, y: tuple[int, int]"))
    assert hints_of(module.buy.function)["y"] == tuple[int, int]


# -- local names --


def test_names_of_the_enclosing_function_are_found():
    app = AsyncQ("memory://")

    @dataclasses.dataclass
    class Order:
        n: int

    class Tasks:
        Alias = list[Order]

        @app.task
        def buy(orders: Alias, one: Order) -> Order:  # noqa: N805
            return one

    assert hints_of(Tasks.buy.function) == {"orders": list[Order], "one": Order, "return": Order}
    task = Tasks.buy
    assert task.arguments.loads(task.arguments.dumps(([Order(1)], Order(2)), {})) == (
        [[Order(1)], Order(2)],
        {},
    )


def test_a_local_name_does_not_hide_one_of_the_module():
    datetime_of_module = datetime

    def register(datetime):
        @AsyncQ("memory://").task
        def at(moment: datetime) -> None: ...

        return at

    assert hints_of(register(int).function)["moment"] is datetime_of_module


def test_local_names_do_not_keep_a_function_alive():
    def register():
        class Order: ...

        @AsyncQ("memory://").task
        def buy(order: Order) -> None: ...

        Order.task = buy
        return weakref.ref(buy.function)

    function = register()
    gc.collect()
    assert function() is None


def test_hints_of_a_class_come_from_imports_for_type_checkers_and_are_never_an_error(package):
    module = package(
        "tasks",
        """
        import dataclasses
        if TYPE_CHECKING:
            from datetime import datetime
            from .models import Order

        @dataclasses.dataclass
        class Sale:
            at: datetime
            order: Order
        """,
    )
    assert hints_of(module.Sale) == {"at": datetime}


def test_annotations_of_a_module_without_source_are_resolved():
    module = types.ModuleType("typed_in")
    module.app = AsyncQ("memory://")
    exec(f"from __future__ import annotations\n{TASK.format('x: Later')}", module.__dict__)
    module.Later = int
    assert hints_of(module.buy.function)["x"] is int
