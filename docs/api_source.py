"""Reads the Python API from the source text of the package, for `api_pages`: which names are public, and what
their definitions say.

It reads the text and imports nothing. So types and defaults stand as they are written, each version of Python
gives the same pages, and an integration is described without its library. A tool for this exists (griffe).
It is not used, because two things of this code would be as much work with it: the blocking twins, whose
parameters are those of another method, and the members that only asyncq's own modules use.
"""  # noqa: INP001  a module beside the pages, not a package

from __future__ import annotations

import ast
import functools
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parent.parent

DISPLAYED = {"App": "AsyncQ", "Returning": "Task", "Replacement": "Workflow"}
"""Types that modules know by a narrow protocol, and what users know them as."""
INTERNAL = re.compile(r"[Ff]or\s+asyncq's\s+own\s+modules|; for `harness`\.")
"""Marks the docstring of a member that is no part of the API."""
BLOCKS = {
    "asynccontextmanager": "AbstractAsyncContextManager",
    "contextmanager": "AbstractContextManager",
}
"""What a decorated generator function returns, by the decorator."""
MOST_OVERLOADS = 4
"""How many overloads are shown, at most."""
WIDTH = 96
"""Characters that a signature may take in one line."""

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Assign | ast.AnnAssign
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Module:
    """The text of one module: its definitions by name, and where imported names come from.

    Attributes:
        name: the name of the module.
        text: its text.
        tree: its syntax tree.
        imports: by the name here: the module that it is imported from, and its name there.
        definitions: the definitions at the top of the module by name; of a function, all with that name.
        texts: what the string below an assignment says.
        modules: the modules of asyncq whose names `source` has shown without the module.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.text: str = path_of(name).read_text(encoding="utf-8")
        self.tree: ast.Module = ast.parse(self.text)
        self.imports: dict[str, tuple[str, str]] = {}
        self.definitions: dict[str, list[Definition]] = {}
        self.texts: dict[str, str] = {}
        self.modules: set[str] = set()
        self._read(self.tree.body)

    def _read(self, body: list[ast.stmt]) -> None:
        self.texts.update(texts_below(body))
        for node in body:
            if isinstance(node, ast.If):  # `if TYPE_CHECKING:`
                self._read(node.body)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = node.module, alias.name
            elif isinstance(node, (ast.ClassDef, *FUNCTIONS)):
                self.definitions.setdefault(node.name, []).append(node)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                for name in assigned(node):
                    self.definitions[name] = [node]

    @property
    def public_names(self) -> list[str]:
        """The names in `__all__`; none if the module has no such list."""
        found = self.definitions.get("__all__")
        return [] if not found else [str(name) for name in ast.literal_eval(_value(found[0]))]

    def source(self, node: ast.AST) -> str:
        """Returns how an expression is written, in one line, with the names that users know."""
        text = re.sub(r"\s+", " ", ast.get_source_segment(self.text, node) or "")
        text = re.sub(r",? ([\])])", r"\1", re.sub(r"([\[(]) ", r"\1", text))
        text = re.sub(r"\b(\w+)\.(?=[A-Z])", self._without_module, text)
        return re.sub(r"\w+", lambda word: DISPLAYED.get(word[0], word[0]), text)

    def _without_module(self, prefix: re.Match[str]) -> str:
        """Returns nothing for the name of a module of asyncq, such as `handle` in `handle.AsyncResult`."""
        where, name = self.imports.get(prefix[1], ("", ""))
        if not where.startswith("asyncq") or not path_of(f"{where}.{name}").exists():
            return prefix[0]
        self.modules.add(f"{where}.{name}")
        return ""

    def find(self, name: str) -> Found | None:
        """Finds what a name that `source` has shown stands for; None if it is not from asyncq."""
        if name in self.definitions:
            return Found(self, name, self.definitions[name])
        where, original = self.imports.get(name, ("", ""))
        if where.startswith("asyncq"):
            return module(where).find(original) if not path_of(f"{where}.{original}").exists() else None
        found = (module(each) for each in sorted(self.modules) if name in module(each).definitions)
        return next((each.find(name) for each in found), None)

    def alias(self, name: str) -> Found | None:
        """Finds the type alias of a name; None if it is something else, such as a type variable."""
        found = self.find(name)
        if (
            found is None
            or not isinstance(found.node, (ast.Assign, ast.AnnAssign))
            or found.node.value is None
        ):
            return None
        value = found.module.source(found.node.value)
        return None if re.match(r"(?:TypeVar|ParamSpec)\(", value) or not name[0].isupper() else found


@dataclass(frozen=True)
class Found:
    """The definition of a name, and the module in which it stands."""

    module: Module
    name: str
    nodes: list[Definition]

    @property
    def node(self) -> Definition:
        """The definition; of an overloaded function, the last one, which is the implementation."""
        return self.nodes[-1]


@dataclass(frozen=True)
class Function:
    """A function or a method.

    Attributes:
        module: where it stands.
        nodes: its overloads, and then its implementation.
        twin: the name of its blocking twin, if it has one with the same parameters.
        aliases: other names of the method.
    """

    module: Module
    nodes: list[ast.FunctionDef | ast.AsyncFunctionDef]
    twin: str | None = None
    aliases: list[str] = field(default_factory=list)

    @property
    def node(self) -> ast.FunctionDef | ast.AsyncFunctionDef:
        """The implementation."""
        return self.nodes[-1]

    @property
    def name(self) -> str:
        """The name."""
        return self.node.name

    @property
    def doc(self) -> str:
        """The docstring."""
        return ast.get_docstring(self.node) or ""

    @functools.cached_property
    def decorators(self) -> set[str]:
        """The names of its decorators, without arguments."""
        return {self.module.source(each).partition("(")[0] for each in self.node.decorator_list}

    @property
    def blocks(self) -> str | None:
        """The name of the method whose blocking twin this is."""
        for each in self.node.decorator_list:
            if isinstance(each, ast.Call) and self.module.source(each.func) == "blocking":
                return self.module.source(each.args[0])
        return None

    def signature(self, *, is_method: bool = False) -> str:
        """Returns the function as Python writes it: where its overloads are few and say more, these."""
        overloads = self.nodes[:-1]
        if overloads and len(overloads) <= MOST_OVERLOADS and "Any" in self._loose_types():
            each = [Function(self.module, [node]) for node in overloads]
            return "\n\n".join(one.signature(is_method=is_method) for one in each)
        is_async = isinstance(self.node, ast.AsyncFunctionDef)
        if {"asynccontextmanager", "contextmanager"} & self.decorators:
            is_async = False
        head = f"{'async ' * is_async}def {self.name}"
        if "classmethod" in self.decorators:
            head = f"@classmethod\n{head}"
        drop = is_method and "staticmethod" not in self.decorators
        parts = list(parameters(self.module, self.node.args, drop_first=drop))
        return laid_out(head, parts, f" -> {self.returns}")

    def _loose_types(self) -> set[str]:
        """Returns the types of the result, and of the parameters without a default."""
        arguments = self.node.args
        positional = [*arguments.posonlyargs, *arguments.args]
        required = positional[: len(positional) - len(arguments.defaults)]
        required += [each for each in (arguments.vararg,) if each is not None]
        kinds = [each.annotation for each in required] + [self.node.returns]
        return {self.module.source(kind) for kind in kinds if kind is not None}

    @property
    def returns(self) -> str:
        """The type of what it returns, as its caller gets it."""
        for decorator, block in BLOCKS.items():
            if decorator in self.decorators:
                return block + self._returned(self.node).removeprefix("Async").removeprefix("Iterator")
        written = self._returned(self.node)
        if written != "Any" or len(self.nodes) == 1:
            return written
        # The implementation of an overloaded function says nothing; the overloads do.
        each = [self._returned(node) for node in self.nodes[:-1]]
        return " | ".join(dict.fromkeys(kind for kind in each if kind != "Any" and kind[0] != "_"))

    def _returned(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
        return "None" if node.returns is None else self.module.source(node.returns)


@dataclass(frozen=True)
class Field:
    """An attribute of a class: its type and default as they are written, and a text in Markdown."""

    module: Module
    name: str
    type: str
    default: str | None
    doc: str
    is_property: bool = False


class Class:
    """A class with its own members and those of the bases that are not public."""

    def __init__(self, found: Found, public: frozenset[str]) -> None:
        assert isinstance(found.node, ast.ClassDef), found.name
        self.module = found.module
        self.node: ast.ClassDef = found.node
        self.name: str = found.name
        self.bases: list[str] = []
        self._hidden: list[Class] = []
        for base in self.node.bases:
            written = self.module.source(base).partition("[")[0]
            known = self.module.find(written)
            if known is None or known.name in public or not isinstance(known.node, ast.ClassDef):
                self.bases.append(written)
            else:
                hidden = Class(known, public)
                self._hidden.append(hidden)
                self.bases += hidden.bases
        self.bases = [
            base for base in dict.fromkeys(self.bases) if base not in {"Generic", "ABC", "Protocol"}
        ]

    @property
    def doc(self) -> str:
        """The docstring."""
        return ast.get_docstring(self.node) or ""

    @property
    def is_dataclass(self) -> bool:
        """Whether its fields are its parameters."""
        names = {self.module.source(each).partition("(")[0] for each in self.node.decorator_list}
        return "dataclass" in names

    def functions(self) -> dict[str, Function]:
        """Returns the methods by name, twins and aliases among those whose they are."""
        found = self._own_functions()
        for hidden in self._hidden:
            for name, function in hidden.functions().items():
                found.setdefault(name, function)
        return found

    def _own_functions(self) -> dict[str, Function]:
        nodes: dict[str, list[ast.FunctionDef | ast.AsyncFunctionDef]] = {}
        for node in self.node.body:
            if isinstance(node, FUNCTIONS):
                nodes.setdefault(node.name, []).append(node)
        functions = {name: Function(self.module, each) for name, each in nodes.items()}
        twins = {of: name for name, each in functions.items() if (of := _twin_of(each, functions))}
        aliases: dict[str, list[str]] = {}
        for node in self.node.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
                aliases.setdefault(node.value.id, []).extend(assigned(node))
        return {
            name: Function(
                self.module,
                each.nodes,
                twins.get(name),
                aliases.get(name, []) + aliases.get(twins.get(name, ""), []),
            )
            for name, each in functions.items()
            if name not in twins.values()
        }

    def fields(self) -> Iterator[Field]:
        """Gives the fields of a dataclass, the members of an enum, and what the docstring names."""
        said = entries_of(self.doc, "Attributes")
        below = texts_below(self.node.body)
        written = {
            name: node
            for node in self.node.body
            if isinstance(node, (ast.Assign, ast.AnnAssign))
            for name in assigned(node)
        }
        names = [*written, *said] if self.is_dataclass or "StrEnum" in self.bases else [*said]
        types = self._attribute_types()
        for name in dict.fromkeys(names):
            node = written.get(name)
            text = said.get(name, below.get(name, ""))
            if name.startswith("_") or not text or INTERNAL.search(text):
                continue
            default = None if node is None or node.value is None else default_of(self.module, node.value)
            yield Field(self.module, name, types.get(name, ""), default, text)
        for hidden in self._hidden:
            yield from (each for each in hidden.fields() if each.name not in names)

    def _attribute_types(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for hidden in self._hidden:
            found.update(hidden._attribute_types())
        for node in self.node.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = self.module.source(node.annotation)
            elif isinstance(node, ast.FunctionDef) and node.name == "__init__":
                found.update(_assigned_types(self.module, node))
            elif isinstance(node, ast.FunctionDef) and node.returns is not None:
                found.setdefault(node.name, self.module.source(node.returns))
        return found

    def properties(self) -> Iterator[Field]:
        """Gives the properties."""
        for name, function in self.functions().items():
            if "property" in function.decorators and is_public(function):
                yield Field(function.module, name, function.returns, None, function.doc, is_property=True)

    def methods(self) -> Iterator[Function]:
        """Gives the public methods, and the special ones that have a docstring."""
        for function in self.functions().values():
            if "property" not in function.decorators and is_public(function):
                yield function

    def special_methods(self) -> set[str]:
        """Returns the names of the special methods."""
        return {name for name in self.functions() if name.startswith("__")}

    def constructor(self) -> str | None:
        """Returns how the class is called. None if users do not make instances: its docstring describes no
        parameters, and it is no dataclass whose fields all have defaults.
        """
        begin = self.functions().get("__init__")
        if "Args" in sections_of(self.doc) and begin is not None:
            return laid_out(
                f"class {self.name}", list(parameters(begin.module, begin.node.args, drop_first=True)), ""
            )
        if not self.is_dataclass:
            return None
        fields = [each for each in self.fields() if not each.is_property]
        if any(each.default is None for each in fields):
            return None
        return laid_out(
            f"class {self.name}", [f"{each.name}: {each.type} = {each.default}" for each in fields], ""
        )


def _twin_of(function: Function, methods: dict[str, Function]) -> str | None:
    """Returns the name of the async method whose blocking twin this is, with the same parameters."""
    if function.blocks is not None:
        return function.blocks
    of = methods.get(function.name.removesuffix("_sync"))
    if of is None or of is function or not isinstance(of.node, ast.AsyncFunctionDef):
        return None
    mine, others = ([*parameters(each.module, each.node.args, drop_first=True)] for each in (function, of))
    return of.name if mine == others else None


def is_public(function: Function) -> bool:
    """Whether a method is for users."""
    name = function.name
    if name.startswith("__"):
        return name != "__init__" and bool(function.doc)
    return not name.startswith("_") and not INTERNAL.search(function.doc)


def path_of(name: str) -> Path:
    """Returns the file of a module."""
    folder = ROOT.joinpath(*name.split("."))
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


@functools.cache
def module(name: str) -> Module:
    """Returns a module of the package, read once."""
    return Module(name)


def modules_in(folder: str) -> Iterator[Module]:
    """Gives the modules and packages of a package that have public names, in order."""
    inside = path_of(folder).parent
    names = {path.stem for path in inside.glob("*.py")} | {
        path.parent.name for path in inside.glob("*/__init__.py")
    }
    for name in sorted(names):
        each = module(folder if name == "__init__" else f"{folder}.{name}")
        if each.public_names:
            yield each


def assigned(node: ast.Assign | ast.AnnAssign) -> list[str]:
    """Returns the plain names to which a statement assigns."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _value(node: ast.AST) -> ast.expr:
    assert isinstance(node, (ast.Assign, ast.AnnAssign))
    assert node.value is not None
    return node.value


def texts_below(body: list[ast.stmt]) -> dict[str, str]:
    """Returns the string that stands below each assignment, by the assigned name."""
    found: dict[str, str] = {}
    for node, below in itertools.pairwise(body):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(below, ast.Expr):
            value = below.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.update(dict.fromkeys(assigned(node), re.sub(r"\s+", " ", value.value)))
    return found


def _assigned_types(source: Module, begin: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Gives the types of what `__init__` assigns to `self`: written there, or that of the parameter."""
    arguments = [*begin.args.posonlyargs, *begin.args.args, *begin.args.kwonlyargs]
    given = {each.arg: source.source(each.annotation) for each in arguments if each.annotation is not None}
    for node in ast.walk(begin):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
            yield node.target.attr, source.source(node.annotation)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in given:
            for target in node.targets:
                if isinstance(target, ast.Attribute):
                    yield target.attr, given[node.value.id]


def default_of(source: Module, value: ast.expr) -> str | None:
    """Returns the default of a field: of `field(default_factory=dict)`, what the factory makes. None if
    `field()` gives none.
    """
    if isinstance(value, ast.Call) and source.source(value.func) == "field":
        for keyword in value.keywords:
            if keyword.arg == "default":
                return source.source(keyword.value)
            if keyword.arg == "default_factory":
                return f"{source.source(keyword.value)}()"
        return None
    return source.source(value)


def parameters(source: Module, arguments: ast.arguments, *, drop_first: bool) -> Iterator[str]:
    """Gives the parameters of a signature, as they are written."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + [*arguments.defaults]
    for at, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        if at or not drop_first:
            yield _parameter(source, argument, default)
        if at + 1 == len(arguments.posonlyargs) and (at or not drop_first):
            yield "/"
    if arguments.vararg is not None:
        yield f"*{_parameter(source, arguments.vararg, None)}"
    elif arguments.kwonlyargs:
        yield "*"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _parameter(source, argument, default)
    if arguments.kwarg is not None:
        yield f"**{_parameter(source, arguments.kwarg, None)}"


def _parameter(source: Module, argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg
    if argument.annotation is not None:
        text += f": {source.source(argument.annotation)}"
    if default is not None:
        text += (
            f" = {source.source(default)}"
            if argument.annotation is not None
            else f"={source.source(default)}"
        )
    return text


def laid_out(head: str, parts: Iterable[str], tail: str) -> str:
    """Returns a signature in one line, or with a line for each parameter."""
    parts = list(parts)
    line = f"{head}({', '.join(parts)}){tail}"
    if len(line.rpartition("\n")[2]) <= WIDTH or not parts:
        return line
    return "\n".join([f"{head}(", *(f"    {part}," for part in parts), f"){tail}"])


# -- docstrings in Google's form --

SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|Example|Examples):$")
ENTRY = re.compile(r"^ {4}(\*{0,2}\w[\w., ]*?): +(.*)$")


def sections_of(doc: str) -> dict[str, list[str]]:
    """Returns the lines of each section of a docstring; those before the first section stand under ""."""
    found: dict[str, list[str]] = {"": []}
    current = found[""]
    for line in doc.splitlines():
        begins = SECTION.match(line)
        if begins:
            current = found.setdefault(begins[1], [])
        else:
            current.append(line)
    return found


def entries_of(doc: str, section: str) -> dict[str, str]:
    """Returns the entries of a section, such as `Args`, by their names, each in one line."""
    found: dict[str, str] = {}
    name = ""
    for line in sections_of(doc).get(section, []):
        begins = ENTRY.match(line)
        if begins:
            name = begins[1]
            found[name] = begins[2]
        elif line.strip():
            found[name] = f"{found[name]} {line.strip()}"
    return found
