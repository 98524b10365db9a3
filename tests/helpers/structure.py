"""Measures the structure of the package: import cycles, upward imports, uses of private names.

`python -m helpers.structure`, run in `tests/`, prints the figures. Imports under `if TYPE_CHECKING:` and
inside functions count like all others.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = "asyncq"


@functools.cache
def imports() -> dict[str, set[str]]:
    """Returns every module of the package, with the modules of the package that it imports."""
    files = {_module(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}
    return {module: _imported(module, path, files) - {module} for module, path in files.items()}


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imported(module: str, path: Path, known: dict[str, Path]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{module} has a relative import"
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                found.add(whole if whole in known else node.module)
    return found & set(known)


def import_cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Returns the groups of modules that import each other, directly or through others; the largest first.

    Algorithm: R. Tarjan, "Depth-first search and linear graph algorithms", 1972.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            start = stack.index(node)
            group = sorted(stack[start:])
            del stack[start:]
            if len(group) > 1:
                found.append(group)

    for node in graph:
        if node not in index:
            visit(node)
    return sorted(found, key=len, reverse=True)


def upward_imports(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Returns the imports from a unit of the top level to one in a higher layer of pyproject.toml."""
    rank = _ranks()
    return sorted(
        (module, other)
        for module, others in graph.items()
        for other in others
        if PACKAGE not in {module, other} and rank[module.split(".")[1]] > rank[other.split(".")[1]]
    )


def _ranks() -> dict[str, int]:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = configuration["tool"]["importlinter"]["contracts"]
    [layers] = [one["layers"] for one in contracts if one.get("containers") == [PACKAGE]]
    return {unit.strip(): rank for rank, layer in enumerate(layers) for unit in layer.split("|")}


def private_uses() -> list[tuple[str, str]]:
    """Returns each line that uses a private name of another file (ruff's SLF001), with the name.

    A name that the file itself defines does not count: a method may use private attributes of another object
    of its class.
    """
    command = [
        "check",
        PACKAGE,
        "--select",
        "SLF001",
        "--ignore-noqa",
        "--output-format",
        "json",
        "--exit-zero",
    ]
    ruff = Path(sys.executable).with_name("ruff")
    output = subprocess.run([ruff, *command], cwd=ROOT, capture_output=True, check=True).stdout
    found = []
    for one in json.loads(output):
        path, name = Path(one["filename"]), one["message"].split("`")[1]
        if name not in _defined(path):
            found.append((f"{path.relative_to(ROOT)}:{one['location']['row']}", name))
    return found


@functools.cache
def _defined(path: Path) -> frozenset[str]:
    """Returns the names that a file defines: functions, variables, attributes of `self`, slots."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)  # in `__slots__`
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        ):
            names.add(node.attr)
    return frozenset(names)


def shared_names() -> dict[str, list[str]]:
    """Returns the names that several files or classes of the package have, with the files."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        file = str(path.relative_to(ROOT))
        if not path.name.startswith("__"):
            found.setdefault(path.name, []).append(file)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(file)
    return {name: files for name, files in found.items() if len(files) > 1}


def methods() -> dict[str, int]:
    """How many methods each class of the package has, see `methods_of`."""
    found: dict[str, int] = {}
    for module in imports():
        if module.endswith("__main__"):
            continue  # importing it runs the program
        for name, value in vars(importlib.import_module(module)).items():
            if inspect.isclass(value) and value.__module__ == module:
                found[name] = len(methods_of(value))
    return found


def methods_of(kind: type, package: str = PACKAGE) -> set[str]:
    """The methods of a class: private and special ones count, and those of its bases in the package.

    A property is no method, and another name for one (`join = get`) is no second one.
    """
    members: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.split(".")[0] == package:
            members.update(vars(base))
    names = {id(value): name for name, value in members.items() if _is_method(value)}
    return set(names.values())


def _is_method(value: object) -> bool:
    return isinstance(value, classmethod | staticmethod) or (callable(value) and not inspect.isclass(value))


def attributes(folder: str = PACKAGE) -> dict[str, int]:
    """Returns how many attributes each class gives to its objects, by `self.x = ...` or in `__slots__`.

    Records are left out: a dataclass or a named tuple is as long as what it holds has fields.
    """
    found: dict[str, int] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not _is_record(node):
                found[node.name] = len(_attributes(node))
    return found


def _is_record(node: ast.ClassDef) -> bool:
    made_of = [part for one in (*node.decorator_list, *node.bases) for part in ast.walk(one)]
    return any(
        isinstance(part, ast.Name) and part.id in {"dataclass", "NamedTuple", "Protocol"} for part in made_of
    )


def _attributes(node: ast.ClassDef) -> set[str]:
    names = {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute)
        and isinstance(part.ctx, ast.Store)
        and isinstance(part.value, ast.Name)
        and part.value.id == "self"
    }
    for part in node.body:
        if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "__slots__":
            names |= {one.value for one in ast.walk(part.value) if isinstance(one, ast.Constant)}
    return {name for name in names if not name.startswith("__")}


def main() -> None:
    print_line = functools.partial(print, file=sys.stdout)
    graph = imports()
    for group in import_cycles(graph):
        print_line(f"cycle of {len(group)}: {', '.join(group)}")
    up = upward_imports(graph)
    print_line(f"{len(up)} upward imports")
    for module, other in up:
        print_line(f"  {module} -> {other}")
    uses = private_uses()
    print_line(f"{len(uses)} uses of private names of other files")
    for file, name in uses:
        print_line(f"  {file} {name}")
    for name, count in sorted(attributes().items(), key=lambda item: -item[1])[:8]:
        print_line(f"{count:3} attributes: {name}")
    for name, count in sorted(methods().items(), key=lambda item: -item[1])[:8]:
        print_line(f"{count:3} methods: {name}")


if __name__ == "__main__":
    main()
