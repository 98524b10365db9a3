"""Writes the pages of the Python API, for `generate`: what `api_source` reads, as Markdown.

The names of `asyncq` stand on several pages, by the package of their definition: one page would have some
3,000 lines. The testing kit and each integration have a page of their own.
"""  # noqa: INP001  a module beside the pages, not a package

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from api_source import (
    INTERNAL,
    ROOT,
    Class,
    Found,
    Function,
    entries_of,
    module,
    modules_in,
    sections_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from api_source import Field, Module

MARK = "<!-- Written by docs/generate.py from the code: change the code, then run it. -->"

PAGES = {
    "api-app": ("The app and its workers", "asyncq.app", "asyncq.worker"),
    "api-tasks": (
        "Tasks and workflows",
        *("asyncq.tasks.task", "asyncq.execution", "asyncq.dependencies", "asyncq.tasks.signature"),
        *("asyncq.tasks.workflow", "asyncq.tasks"),
    ),
    "api-results": (
        "Results",
        *("asyncq.results.handle", "asyncq.results.streamresult", "asyncq.results.resultset"),
        *("asyncq.results.groupresult", "asyncq.results.eager", "asyncq.results.gathering"),
        *("asyncq.outcome", "asyncq.states", "asyncq.results"),
    ),
    "api-jobs": ("Inside and around a job", "asyncq.context", "asyncq.middleware", "asyncq.client"),
    "api-schedules": ("Schedules", "asyncq.schedules"),
    "api-control": ("Control", "asyncq.control.control", "asyncq.control"),
    "errors": ("Errors", "asyncq.errors"),
}
"""Where the names of `asyncq` stand: the title of each page, and the modules and packages whose names it has,
in this order."""
ALSO = {
    "asyncq.tasks.task": ("CoroutineTask", "FunctionTask", "AsyncGeneratorTask", "GeneratorTask"),
}
"""Classes that nobody imports, but that everybody has in hand: `@app.task` returns them."""
ELSEWHERE = {"Settings": "[all settings](settings.md)"}
"""Classes of attributes that have a page of another kind."""
SPECIAL = {
    "__await__": "`await`",
    "__aenter__": "`async with`",
    "__enter__": "`with`",
    "__aiter__": "`async for`",
    "__iter__": "`for`",
    "__len__": "`len()`",
    "__getitem__": "`[...]`",
    "__contains__": "`in`",
    "__or__": "`|`",
    "__eq__": "`==`",
    "__call__": "a call",
    "__reduce__": "pickle",
}
"""What a class can be used with, by its special methods."""
ERRORS = """\
Every error of asyncq itself is an `AsyncQError`. An exception that a task raised is not one: it arrives as it
was raised."""
INTRODUCTION = """\
Every public class and function, as the code has it. The names without a module are imported from `asyncq`:
`from asyncq import AsyncQ`, or `asyncq.AsyncQ`.

- Times are in seconds, as a number or a `timedelta`. `timeout=None` waits for ever, `timeout=0` looks once.
- An awaited method may be called on any event loop. Its *blocking twin* has the same parameters, returns the
  same and raises the same. It is called on a thread without a running event loop, and raises
  `SyncInAsyncContext` on one whose loop runs.
- In types, `P` are the parameters of a task's function and `R` is its result, `Y` what a generator yields,
  and `H` and `H_co` the class of the handle: `AsyncResult[R]`, or for a generator task `StreamResult[Y]`."""


@dataclass
class Page:
    """A page while it is written.

    Attributes:
        file: the name of its file, without the ending.
        title: its title.
        entries: what it describes: how it is shown, its anchor, and a sentence.
        lines: the lines below the list of the entries.
        anchors: of its headings.
        types: the type aliases that its signatures use, by their names.
    """

    file: str
    title: str
    entries: list[tuple[str, str, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    types: dict[str, Found] = field(default_factory=dict)

    def heading(self, level: int, text: str) -> str:
        """Adds a heading, and returns its anchor."""
        anchor = slug(text)
        if anchor in self.anchors:
            raise ValueError(f"{self.file}: two headings would have the anchor {anchor!r}")
        self.anchors.add(anchor)
        self.lines += [f"{'#' * level} {text}", ""]
        return anchor

    def add(self, *paragraphs: str) -> None:
        """Adds paragraphs."""
        for text in paragraphs:
            if text:
                self.lines += [text, ""]

    def note_types(self, source: Module, signature: str) -> None:
        """Notes the type aliases in a signature. They are explained at the end of the page."""
        for name in re.findall(r"\w+", signature):
            found = source.alias(name)
            if found is not None:
                self.types[found.name] = found

    def add_types(self) -> None:
        """Adds what the type aliases stand for, but for those that have a section of their own."""
        lines = []
        for name, found in sorted(self.types.items()):
            value, text = found.node.value, found.module.texts.get(name, "")
            if slug(name) not in self.anchors and value is not None:
                lines.append(f"- `{name}`: `{found.module.source(value)}`. {text}".rstrip())
        if lines:
            self.heading(2, "Types and constants")
            self.add("\n".join(lines))

    def text(self, introduction: str = "") -> str:
        """Returns the page, with a list of what it describes at the top."""
        head = [f"# {self.title}", MARK, ""]
        if introduction:
            head += [introduction, ""]
        head += [f"- [{shown}](#{anchor}): {summary}" for shown, anchor, summary in self.entries]
        return "\n".join([*head, "", *self.lines]).rstrip() + "\n"


def slug(heading: str) -> str:
    """Returns the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def pages() -> dict[str, str]:
    """Every page of the Python API by its file name, as the code has it now."""
    written = [*_pages_of_asyncq(), _testing(), *_integrations()]
    for page, _ in written:
        page.add_types()
    found = {f"{page.file}.md": page.text(introduction) for page, introduction in written if page.entries}
    return {"api.md": _index([page for page, _ in written if page.entries]), **found}


def public_names() -> frozenset[str]:
    """The names that `asyncq` and the testing kit export."""
    return frozenset([*module("asyncq").public_names, *module("asyncq.testing").public_names])


def _pages_of_asyncq() -> Iterator[tuple[Page, str]]:
    face = module("asyncq")
    found = [each for name in face.public_names if (each := face.find(name)) is not None]
    found += [each for name, kinds in ALSO.items() for kind in kinds if (each := module(name).find(kind))]
    found += list(_led_to(found))
    for file, (title, *packages) in PAGES.items():
        page = Page(file, title)
        here = [each for each in found if _is_in(each.module, packages)]
        for each in sorted(here, key=lambda each: (packages.index(_package(each, packages)), _order(each))):
            _describe(page, each)
        yield page, ERRORS if file == "errors" else ""
    lost = [
        each.name for each in found if not any(_is_in(each.module, names) for _, *names in PAGES.values())
    ]
    if lost:
        raise ValueError(f"docs/api_pages.py: PAGES has no page for {', '.join(lost)}")


def _is_in(source: Module, packages: Iterable[str]) -> bool:
    return any(source.name == package or source.name.startswith(f"{package}.") for package in packages)


def _package(found: Found, packages: list[str]) -> str:
    return next(package for package in packages if _is_in(found.module, [package]))


def _order(found: Found) -> tuple[str, int]:
    return found.module.name, found.node.lineno


def _led_to(found: list[Found]) -> Iterator[Found]:
    """Gives the classes to which the attributes of the public classes lead, such as `app.control`."""
    public = public_names()
    todo, seen = [*found], {each.name for each in found}
    while todo:
        each = todo.pop(0)
        if not isinstance(each.node, ast.ClassDef):
            continue
        for attribute in Class(each, public).fields():
            kind = attribute.module.find(attribute.type)
            if kind is None or kind.name in seen or kind.name in ELSEWHERE or kind.name.startswith("_"):
                continue
            if isinstance(kind.node, ast.ClassDef):
                seen.add(kind.name)
                todo.append(kind)
                yield kind


def _testing() -> tuple[Page, str]:
    kit = module("asyncq.testing")
    page = Page("api-testing", "asyncq.testing")
    for name in _functions_first(kit.public_names):
        found = kit.find(name)
        assert found is not None, name
        _describe(page, found)
    plugin = module("asyncq.testing.pytest_plugin")
    for name, nodes in plugin.definitions.items():
        function = Function(plugin, [node for node in nodes if isinstance(node, (ast.FunctionDef))])
        if function.nodes and "pytest.fixture" in function.decorators:
            _describe_function(page, function, 2, f"`{name}` (fixture of pytest)")
    return page, "How to use it: [testing](../howto/testing.md). Needs the extra `testing`."


def _functions_first(names: Iterable[str]) -> list[str]:
    """Returns the names as a reader looks for them: functions, and then classes and constants."""
    return sorted(names, key=lambda name: not name[0].islower())


def _integrations() -> Iterator[tuple[Page, str]]:
    for each in modules_in("asyncq.integrations"):
        short = each.name.rpartition(".")[2]
        page = Page(f"api-{short}", each.name)
        for name in _functions_first(each.public_names):
            found = each.find(name)
            assert found is not None, f"{each.name}.{name}"
            _describe(page, found)
        guide = next(
            (name for name in (short, "monitoring") if (ROOT / f"docs/howto/{name}.md").exists()), ""
        )
        about = _paragraphs((ast.get_docstring(each.tree) or "").partition("\n\n")[0])
        yield page, f"{about}\n\nHow to use it: [{guide}](../howto/{guide}.md)."


def _index(written: list[Page]) -> str:
    lines = ["# Python API", MARK, "", INTRODUCTION, ""]
    for page in written:
        lines += [f"## [{page.title}]({page.file}.md)", ""]
        lines += [
            f"- [{shown}]({page.file}.md#{anchor}): {summary}" for shown, anchor, summary in page.entries
        ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


# -- one name --


def _describe(page: Page, found: Found) -> None:
    node = found.node
    if isinstance(node, ast.ClassDef):
        _describe_class(page, Class(found, public_names()))
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        nodes = [each for each in found.nodes if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))]
        function = Function(found.module, nodes)
        anchor = _describe_function(page, function, 2, f"`{found.name}()`")
        page.entries.append((f"`{found.name}()`", anchor, summary(function.doc)))
    else:
        _describe_constant(page, found)


def _describe_constant(page: Page, found: Found) -> None:
    text = found.module.texts.get(found.name, "")
    anchor = page.heading(2, f"`{found.name}`")
    page.entries.append((f"`{found.name}`", anchor, summary(text)))
    value = getattr(importlib.import_module(found.module.name), found.name)
    members = (
        ", ".join(f"`{each}`" for each in sorted(value)) if isinstance(value, frozenset) else f"`{value!r}`"
    )
    page.add(text, f"Value: {members}.")


def _describe_class(page: Page, kind: Class) -> None:
    shown = f"`{kind.name}`" if page.file == "errors" else f"class `{kind.name}`"
    anchor = page.heading(2, shown)
    page.entries.append((f"`{kind.name}`", anchor, summary(kind.doc)))
    constructor = kind.constructor()
    if constructor is not None:
        page.add(_code(constructor))
        page.note_types(kind.module, constructor)
    if kind.bases:
        page.add(f"Derived from {', '.join(f'`{base}`' for base in kind.bases)}.")
    page.add(*_sections(kind.doc, skip={"Attributes"}))
    uses = [text for name, text in SPECIAL.items() if name in kind.special_methods()]
    if uses:
        page.add(f"Works with {', '.join(uses)}.")
    described = [*kind.fields()]
    names = {each.name for each in described}
    described += [each for each in kind.properties() if each.name not in names]
    if described:
        page.add("**Values**" if "StrEnum" in kind.bases else "**Attributes**")
        page.add("\n".join(line for each in described for line in _field(page, each)))
    for method in kind.methods():
        _describe_function(page, method, 3, f"`{kind.name}.{method.name}`")


def _field(page: Page, described: Field) -> Iterator[str]:
    page.note_types(described.module, described.type)
    parts = sections_of(described.doc)
    kind = f": `{described.type}`" if described.type else ""
    default = f", default `{described.default}`" if described.default is not None and described.type else ""
    text = _one_line(parts[""])
    text = text[0].upper() + text[1:]
    elsewhere = ELSEWHERE.get(described.type)
    if elsewhere:
        text += f" See {elsewhere}."
    yield f"- `{described.name}`{kind}{default}. {text}"
    for names, when in entries_of(described.doc, "Raises").items():
        yield f"  Raises {_coded(names)}: {when}"
    example = _text(parts.get("Example", []))
    if example:
        yield ""
        yield from (f"  {line}".rstrip() for line in example.splitlines())


def _describe_function(page: Page, function: Function, level: int, shown: str) -> str:
    anchor = page.heading(level, shown)
    signature = function.signature(is_method=level > 2)
    page.add(_code(signature))
    page.note_types(function.module, signature)
    page.add(*_sections(function.doc))
    if function.twin:
        page.add(f"Blocking twin: `{function.twin}`, with the same parameters.")
    if function.aliases:
        page.add(f"Other names: {', '.join(f'`{name}`' for name in function.aliases)}.")
    return anchor


# -- docstrings as Markdown --

TITLES = {"Args": "Parameters", "Raises": "Raises", "Attributes": "Attributes"}


def _sections(doc: str, skip: Iterable[str] = ()) -> Iterator[str]:
    for name, lines in sections_of(doc).items():
        if name in skip:
            continue
        if name in TITLES:
            yield f"**{TITLES[name]}**"
            yield "\n".join(f"- {_coded(names)}: {text}" for names, text in entries_of(doc, name).items())
        elif name in {"Example", "Examples"}:
            yield "**Example**"
            yield _text(lines)
        elif name:
            yield f"**{name}**"
            yield _text(lines)
        else:
            yield _text(lines)


def _coded(names: str) -> str:
    return ", ".join(f"`{name.strip()}`" for name in names.split(","))


def _one_line(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())


def _text(lines: list[str]) -> str:
    """Returns the lines of a section, without their common indent. Python is shown as `py`: those blocks are
    parts of a program, and the tests of the pages run what is marked as `python`.
    """
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    text = "\n".join(line[indent:] for line in lines).strip("\n")
    return _paragraphs(text.replace("```python", "```py"))


def _paragraphs(text: str) -> str:
    """Puts what looks like a session of Python into a block of its own."""
    parts = text.split("\n\n")
    return "\n\n".join(_code(part) if part.startswith(">>> ") else part for part in parts)


def _code(text: str) -> str:
    return f"```py\n{text}\n```"


def summary(doc: str) -> str:
    """Returns the first sentence of a docstring."""
    first = _one_line(doc.partition("\n\n")[0].splitlines())
    end = re.search(r"[.:](?= [A-Z]|$)", first)
    return first if end is None else first[: end.start()] + "."


def is_internal(doc: str) -> bool:
    """Whether a docstring says that its member is for asyncq's own modules."""
    return INTERNAL.search(doc) is not None
