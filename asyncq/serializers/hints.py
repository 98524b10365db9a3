"""Resolves the annotations of a function or a class.

A name in an annotation is looked up where Python looks it up. If it is not there, it is looked up among the
local names of the place where the task is registered, and then among the names that the module imports under
`if TYPE_CHECKING:`, if their modules are imported already. A name that the module defines later is found at
first use (`hints_of`). A name that is found nowhere is an error if a function's annotation uses it: the
values would travel as something else.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import linecache
import sys
import types
import typing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from typing_extensions import is_typeddict

from asyncq.serializers.hint_forms import substituted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_LOCAL_NAMES: Final = "__asyncq_local_names__"
"""The attribute in which a function or class keeps the local names that its annotations use. A table would
keep them alive for ever: a local class may refer to the function. As an attribute they are a cycle, which the
garbage collector frees."""


def hints_of(owner: Any, args: tuple[Any, ...] = ()) -> dict[str, Any]:
    """Returns the resolved annotations of a function or class.

    Leaves out annotations of a class that cannot be resolved, and annotations that are no types.

    Args:
        owner: the function or class.
        args: the arguments of a generic class, which replace its type variables.

    Raises:
        TypeError: an annotation of a function uses a name that is defined nowhere; the message says which.
    """
    owner = _annotated(owner)
    try:
        hints = typing.get_type_hints(owner, include_extras=True)
    except Exception:  # noqa: BLE001  evaluating an annotation may raise anything
        hints = _hints_one_by_one(owner)
    if not isinstance(owner, type):
        return hints
    found = dict(_generic_bases(owner, args))
    if not any(found.values()):
        return hints
    # A TypeVar belongs to the class that writes it: two bases may use the same one for different things.
    line = [*found, *owner.__mro__] if is_typeddict(owner) else owner.__mro__
    for name, hint in hints.items():
        writer = next((cls for cls in line if name in _raw_annotations(cls)), owner)
        hints[name] = substituted(hint, found.get(writer, {}))
    return hints


def check_hints(function: Callable[..., Any], local: Callable[[str], Any]) -> dict[str, Any]:
    """Checks the annotations of a function that is being registered, and keeps the local names in them for
    later.

    Args:
        function: of the task.
        local: returns the value of a local name of the place of registration, or raises `LookupError`.

    Returns:
        The annotations, as far as they can be resolved already.

    Raises:
        TypeError: an annotation uses a name that the module imports under `if TYPE_CHECKING:` only, from a
            module that is not imported. A name that is found nowhere is no error yet: it may be defined
            later.
    """
    owner = _annotated(function)
    try:
        hints = typing.get_type_hints(owner, include_extras=True)
    except Exception:  # noqa: BLE001  evaluating an annotation may raise anything
        hints = _check_one_by_one(inspect.unwrap(owner), local)
    # The fields of a local class may name other local classes, which cannot be found later either.
    module, seen = getattr(inspect.unwrap(owner), "__module__", None), set[Any]()
    for cls in (cls for hint in hints.values() for cls in _classes_in(hint)):
        _keep_names_of_fields(cls, module, local, seen)
    return hints


def shown_parameter(function: Any, parameter: str) -> str:
    """Returns a parameter of a function, or its result (`return`), as an error prints it."""
    where = "the result" if parameter == "return" else f"the parameter {parameter!r}"
    owner = inspect.unwrap(_annotated(function))
    return f"{where} of {owner.__module__}.{getattr(owner, '__qualname__', '?')}"


def _classes_in(hint: Any) -> Iterator[Any]:
    if isinstance(hint, type):
        yield hint
    for inner in (typing.get_origin(hint), *typing.get_args(hint)):
        if inner is not None:
            yield from _classes_in(inner)


def _keep_names_of_fields(cls: Any, module: Any, local: Callable[[str], Any], seen: set[Any]) -> None:
    """Keeps the local names in the fields of a local class, and of the local classes that it names."""
    if cls in seen or cls.__module__ != module or "<locals>" not in cls.__qualname__:
        return
    seen.add(cls)
    scope = _Scope(cls)
    named = list(cls.__bases__)
    for annotation in _raw_annotations(cls).values():
        try:
            named += _classes_in(scope.evaluate(annotation, local))
        except Exception:  # noqa: BLE001, S112  a field that cannot be evaluated has no type
            continue
    scope.keep()
    for other in named:
        _keep_names_of_fields(other, module, local, seen)


def _annotated(owner: Any) -> Any:
    """Returns the object that has the annotations of a callable: the function of a partial, or the `__call__`
    of an object.
    """
    while isinstance(owner, functools.partial):
        owner = owner.func
    if isinstance(owner, type) or hasattr(owner, "__annotations__"):
        return owner
    return type(owner).__call__ if callable(owner) and not inspect.isroutine(owner) else owner


def _check_one_by_one(function: Any, local: Callable[[str], Any]) -> dict[str, Any]:
    """Evaluates the annotations of a function one by one, for `check_hints`."""
    scope = _Scope(function)
    hints: dict[str, Any] = {}
    for parameter, annotation in _raw_annotations(function).items():
        try:
            hints[parameter] = scope.evaluate(annotation, local)
        except NameError as error:
            declared = scope.declared().get(error.name or "")
            if declared is not None and not declared.is_being_imported():
                raise scope.refusal(parameter, error.name or "", declared) from None
        except Exception:  # noqa: BLE001, S112  it may succeed later; `hints_of` ignores or refuses it then
            continue
    scope.keep()
    return hints


def _hints_one_by_one(owner: Any) -> dict[str, Any]:
    """Evaluates the annotations of a function or class one by one, for `hints_of`."""
    hints: dict[str, Any] = {}
    is_class = isinstance(owner, type)
    for part in reversed(owner.__mro__) if is_class else [inspect.unwrap(owner)]:
        scope = _Scope(part)
        for name, annotation in _raw_annotations(part).items():
            try:
                hints[name] = scope.evaluate(annotation)
            except Exception as error:  # noqa: BLE001  evaluating an annotation may raise anything
                if not is_class and isinstance(error, NameError | AttributeError):
                    missing = error.name or str(annotation)
                    raise scope.refusal(name, missing, scope.declared().get(missing)) from None
                hints.pop(name, None)
    return hints


def _raw_annotations(owner: Any) -> Mapping[str, Any]:
    try:
        return inspect.get_annotations(owner)
    except NameError:  # from Python 3.14 on, they are evaluated here, all or none
        return {}


def _generic_bases(cls: Any, args: tuple[Any, ...]) -> Iterator[tuple[Any, Mapping[Any, Any]]]:
    """Yields a class and its bases, each with the arguments for its parameters."""
    given = dict(zip(getattr(cls, "__parameters__", ()), args, strict=False))
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = typing.get_origin(base) or base
        if isinstance(origin, type) and origin is not object:
            inner = tuple(substituted(arg, given) for arg in typing.get_args(base))
            yield from _generic_bases(origin, inner)
    yield cls, given


class _Scope:
    """Looks up the names in the annotations of one function or class."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        module = sys.modules.get(getattr(owner, "__module__", None) or "")
        self._names: dict[str, Any] = getattr(owner, "__globals__", None) or vars(module or typing)
        code = getattr(owner, "__code__", None)
        self._file: str = code.co_filename if code else self._names.get("__file__") or ""
        self._kept: dict[str, Any] = dict(getattr(owner, _LOCAL_NAMES, ()))

    def evaluate(self, annotation: Any, local: Callable[[str], Any] | None = None) -> Any:
        """Evaluates one annotation.

        Raises:
            NameError: a name is found nowhere; the error has the name.
            Exception: what the evaluation raises.
        """
        holder = types.SimpleNamespace(
            __annotations__={"it": annotation}, __type_params__=getattr(self._owner, "__type_params__", ())
        )
        found: dict[str, Any] = {}
        while True:
            try:
                hints = typing.get_type_hints(holder, self._names, found or None, include_extras=True)
            except NameError as error:
                name = error.name
                if name is None or name in found:
                    raise
                try:
                    found[name] = self._find(name, local)
                except LookupError:
                    raise error from None
            else:
                return hints["it"]

    def _find(self, name: str, local: Callable[[str], Any] | None) -> Any:
        """Returns the value of a name that Python has not found. Raises `LookupError` if it is nowhere."""
        if name in self._kept:
            return self._kept[name]
        if local is not None:
            try:
                self._kept[name] = local(name)
            except LookupError:
                pass
            else:
                return self._kept[name]
        return self.declared()[name].value()

    def keep(self) -> None:
        """Stores the local names that were found on the function or class, for its first use."""
        if self._kept:
            setattr(getattr(self._owner, "__func__", self._owner), _LOCAL_NAMES, self._kept)

    def declared(self) -> dict[str, _Import]:
        """Returns what the module imports for type checkers only. Reads its source: at run time, these names
        do not exist.
        """
        source = "".join(linecache.getlines(self._file, self._names))
        return _declared(source, self._names.get("__package__") or "") if source else {}

    def refusal(self, parameter: str, name: str, declared: _Import | None) -> TypeError:
        """Makes the error for a name that is not there."""
        head = f"the annotation of {shown_parameter(self._owner, parameter)} uses {name}, which "
        if declared is None:
            return TypeError(
                f"{head}is not defined in {self._file or 'its module'}; values are encoded by their "
                "annotations, so define or import it there"
            )
        return TypeError(
            f"{head}{self._file} imports under `if TYPE_CHECKING:` only; values are encoded by their "
            f"annotations, so import it at run time, outside of that block: {declared.statement}"
        )


class _Import(NamedTuple):
    """A name that a module imports for type checkers only.

    Attributes:
        module: the full name of the module in the import.
        attribute: the name that is imported from the module; empty for the module itself.
        bound: the module that the name means, if it means one: `a` in `import a.b`.
        statement: the import, for an error.
    """

    module: str
    attribute: str
    bound: str
    statement: str

    def value(self) -> Any:
        """Returns the value of the name, if its module is imported already.

        Raises:
            LookupError: the module is not imported.
        """
        module = sys.modules[self.module]
        if not self.attribute:
            return sys.modules[self.bound]
        try:
            return getattr(module, self.attribute)
        except AttributeError:
            return sys.modules[f"{self.module}.{self.attribute}"]

    def is_being_imported(self) -> bool:
        """Returns whether the import of the module has begun and not ended, as in a circular import: then the
        name will be there later.
        """
        spec = getattr(sys.modules.get(self.module), "__spec__", None)
        return getattr(spec, "_initializing", False) is True


@functools.lru_cache(maxsize=4)  # the tasks of a module are registered one after the other
def _declared(source: str, package: str) -> dict[str, _Import]:
    try:
        tree = ast.parse(source)
    except SyntaxError:  # the cell of a notebook may have an `await` at its top level
        return {}
    hidden = list(_for_type_checkers(tree.body))
    there = set(_bound(tree.body, set(map(id, hidden))))
    return {name: target for node in hidden for name, target in _imported(node, package) if name not in there}


def _bound(body: list[ast.stmt], hidden: set[int]) -> Iterator[str]:
    """Yields the names that the statements of a module bind, also those behind the function. Skips the hidden
    statements.
    """
    for node in body:
        if id(node) in hidden:
            continue
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Import() | ast.ImportFrom():
                yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
            case ast.Assign():
                yield from (target.id for target in node.targets if isinstance(target, ast.Name))
            case ast.If():
                yield from _bound([*node.body, *node.orelse], hidden)
            case ast.Try():
                handlers = [statement for handler in node.handlers for statement in handler.body]
                yield from _bound([*node.body, *handlers, *node.orelse, *node.finalbody], hidden)


def _for_type_checkers(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yields the statements of a module that only type checkers see."""
    for node in body:
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                yield from node.body
                yield from _for_type_checkers(node.orelse)
            case ast.If(
                test=ast.UnaryOp(
                    op=ast.Not(), operand=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")
                )
            ):
                yield from node.orelse
            case ast.If() | ast.Try():
                yield from _for_type_checkers([*node.body, *node.orelse])


def _imported(node: ast.stmt, package: str) -> Iterator[tuple[str, _Import]]:
    """Yields the names that a statement imports."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            first = alias.name.partition(".")[0]
            bound = alias.name if alias.asname else first
            statement = ast.unparse(ast.Import([alias]))
            yield alias.asname or first, _Import(alias.name, "", bound, statement)
    elif isinstance(node, ast.ImportFrom):
        relative = "." * node.level + (node.module or "")
        try:
            module = importlib.util.resolve_name(relative, package)
        except ImportError:  # it goes beyond the top of the package
            return
        for alias in node.names:
            statement = ast.unparse(ast.ImportFrom(node.module, [alias], node.level))
            yield alias.asname or alias.name, _Import(module, alias.name, "", statement)
