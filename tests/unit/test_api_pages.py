"""The pages of the Python API have every public name, with the parameters that Python itself sees."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import tomllib
from pathlib import Path

import pytest

import asyncq
import asyncq.testing

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
HEADING = re.compile(r"^#{2,3} (?:class )?`([\w.]+)(?:\(\))?`(?: \(fixture of pytest\))?$", re.MULTILINE)
BLOCK = re.compile(r"^ *```py\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([\w.-]*)#([\w-]+)\)")
INTERNAL = re.compile(r"[Ff]or\s+asyncq's\s+own\s+modules|; for `harness`\.")

sys.path.append(str(ROOT / "docs"))
api_source = importlib.import_module("api_source")


def page(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text(encoding="utf-8")


PAGES = {path.stem: path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md")}
OF_ASYNCQ = {name: text for name, text in PAGES.items() if name == "errors" or name.startswith("api-")}


def integrations() -> list[str]:
    folder = ROOT / "asyncq/integrations"
    files = [*folder.glob("*.py"), *folder.glob("*/__init__.py")]
    public = [path for path in files if "\n__all__ = " in path.read_text("utf-8")]
    return sorted(path.parent.name if path.stem == "__init__" else path.stem for path in public)


ELSEWHERE = {"api-testing", *(f"api-{name}" for name in integrations())}
"""Pages of names that are not imported from `asyncq`."""


def headings(name: str) -> list[str]:
    return HEADING.findall(PAGES[name])


def section(text: str, heading: str) -> str:
    """Returns what stands below a heading."""
    begin = re.search(rf"^#+ (?:class )?`{re.escape(heading)}(?:\(\))?`.*$", text, re.MULTILINE)
    assert begin is not None, heading
    return text[begin.end() :].partition("\n#")[0]


def test_every_public_name_has_a_section_on_one_page():
    found = [name for page in OF_ASYNCQ if page not in ELSEWHERE for name in headings(page)]
    for name in asyncq.__all__:
        assert found.count(name) == 1, name
    for name in asyncq.testing.__all__:
        assert headings("api-testing").count(name) == 1, name


@pytest.mark.parametrize("name", integrations())
def test_every_public_name_of_an_integration_has_a_section(name):
    module = importlib.import_module(f"asyncq.integrations.{name}")
    assert set(module.__all__) <= set(headings(f"api-{name}"))


def test_every_extra_for_a_library_has_a_module_that_says_what_is_public():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    others = {"crypto", "embedded", "uvloop", "reload", "cron", "testing", "top", "standard", "all"}
    assert set(extras) - others <= set(integrations())


def public_members() -> list[tuple[str, str]]:
    """Returns the methods and properties of the public classes of asyncq, as Python sees them."""
    found = []
    for name in asyncq.__all__:
        kind = getattr(asyncq, name)
        bases = kind.__mro__ if inspect.isclass(kind) else ()
        public = [base for base in bases[1:] if base.__name__ in asyncq.__all__]
        elsewhere = {base for each in public for base in each.__mro__}  # in the sections of those classes
        for base in bases:
            if base in elsewhere or base.__module__.partition(".")[0] != "asyncq":
                continue
            for member, value in vars(base).items():
                inner = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                if member.startswith("_") or not (callable(inner) or isinstance(value, property)):
                    continue
                if not INTERNAL.search(inspect.getdoc(inner) or ""):
                    found.append((name, member))
    return list(dict.fromkeys(found))


def sections_of(kind: str) -> str:
    """Returns all that a page says about a class."""
    [text] = [text for name, text in OF_ASYNCQ.items() if kind in headings(name) and name not in ELSEWHERE]
    begin = re.search(rf"^## (?:class )?`{kind}`$", text, re.MULTILINE)
    assert begin is not None
    return text[begin.end() :].partition("\n## ")[0]


@pytest.mark.parametrize(("kind", "member"), public_members())
def test_every_public_member_of_a_class_is_described(kind, member):
    described = (
        rf"### `{kind}\.{member}`",
        rf"- `{member}`.*",
        rf"(?:Blocking twin|Other names): .*`{member}`.*",
    )
    assert re.search(f"^(?:{'|'.join(described)})$", sections_of(kind), re.MULTILINE)


def functions() -> dict[str, object]:
    found = {}
    for name in asyncq.__all__:
        value = getattr(asyncq, name)
        if inspect.isfunction(value):
            found[name] = value
        for member, method in vars(value).items() if inspect.isclass(value) else ():
            if inspect.isfunction(method) and not member.startswith("_"):
                found[f"{name}.{member}"] = method
    return found


def parsed(text: str) -> list[ast.stmt]:
    """Parses a block: an example, or signatures, which have no body."""
    try:
        return ast.parse(text).body
    except SyntaxError:
        signatures = re.sub(r"^class ", "def ", text.strip()).split("\n\n")
        return [node for one in signatures for node in ast.parse(f"{one}: ...").body]


@pytest.mark.parametrize("name", sorted(functions()))
def test_a_shown_signature_has_the_parameters_and_defaults_that_python_sees(name):
    texts = [text for page, text in OF_ASYNCQ.items() if page not in ELSEWHERE and name in headings(page)]
    if not texts:
        return  # a blocking twin, or internal
    block = BLOCK.search(section(texts[0], name))
    assert block is not None
    shown = parsed(block[1])
    if len(shown) > 1:
        return  # overloads, which the type checkers compare
    arguments = shown[0].args
    written = [
        *arguments.posonlyargs,
        *arguments.args,
        arguments.vararg,
        *arguments.kwonlyargs,
        arguments.kwarg,
    ]
    expected = inspect.signature(inspect.unwrap(functions()[name])).parameters.values()
    expected = [each for each in expected if each.name not in {"self", "cls"}]
    assert [each.arg for each in written if each is not None] == [each.name for each in expected]
    defaults = [each for each in (*arguments.defaults, *arguments.kw_defaults) if each is not None]
    assert len(defaults) == len([each for each in expected if each.default is not each.empty])


@pytest.mark.parametrize("name", sorted(OF_ASYNCQ))
def test_every_example_on_a_page_is_python(name):
    blocks = BLOCK.findall(PAGES[name])
    assert blocks or name == "errors"
    for block in blocks:
        lines = inspect.cleandoc("\n" + block).splitlines()
        parsed("\n".join(line for line in lines if not line.startswith(("%", ">>> "))))


def anchors(text: str) -> set[str]:
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_links_of_a_reference_page_lead_to_headings(name):
    for target, anchor in LINK.findall(PAGES[name]):
        text = PAGES[target.removesuffix(".md") or name]
        assert anchor in anchors(text), f"{target}#{anchor}"


def test_the_index_leads_to_every_page_and_name():
    index = page("api")
    for name in OF_ASYNCQ:
        assert f"]({name}.md)" in index
    for name in asyncq.__all__:
        assert re.search(rf"^- \[`{name}(?:\(\))?`\]", index, re.MULTILINE), name


def test_what_a_docstring_marks_as_internal_is_on_no_page():
    assert "own modules" not in "".join(OF_ASYNCQ.values())
    assert "`Task.batch_task`" not in PAGES["api-tasks"]


EXAMPLE = '''
class Base:
    """Is not public.

    Attributes:
        size: in bytes.
    """

    size: int

    async def wait(self, timeout: float | None = None, *, often: bool = True) -> int:
        """Waits for it.

        Raises:
            TimeoutError: it is late.
        """

    @blocking(wait)
    def wait_sync(self) -> None:
        """Blocking twin of `wait`."""


class Public(Base):
    """Is public."""

    def plan(self) -> None:
        """Plans. For asyncq's own modules."""

    @property
    def name(self) -> str:
        """The name."""
'''


def test_a_class_has_the_members_of_a_base_that_is_not_public(tmp_path, monkeypatch):
    (tmp_path / "asyncq").mkdir()
    (tmp_path / "asyncq/example.py").write_text(EXAMPLE)
    monkeypatch.setattr(api_source, "ROOT", tmp_path)
    module = api_source.Module("asyncq.example")
    kind = api_source.Class(module.find("Public"), frozenset({"Public"}))

    [wait] = kind.methods()
    assert wait.signature(is_method=True) == (
        "async def wait(timeout: float | None = None, *, often: bool = True) -> int"
    )
    assert wait.twin == "wait_sync"
    assert [(each.name, each.type, each.doc) for each in (*kind.fields(), *kind.properties())] == [
        ("size", "int", "in bytes."),
        ("name", "str", "The name."),
    ]
    assert kind.constructor() is None
