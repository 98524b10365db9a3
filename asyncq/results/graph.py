"""Graphs: jobs, and which of them came from which, to be looked at and drawn.

`tree` builds them. A graph talks to no server: it shows what this process last saw, on any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq.states import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncq.results.handle import AsyncResult

_COLOURS = {State.SUCCESS: "#c8e6c9", State.FAILURE: "#ffcdd2", State.REVOKED: "#e0e0e0"}
_UNENDED = "#fff9c4"


class DependencyGraph:
    """Holds a job and all that came from it: `await result.build_graph()` returns one.

    Handles stand for the jobs. Each job is there once, however many ways lead to it.

    Attributes:
        root: the job that it was built from.
        nodes: all jobs, level by level, in the order in which they were found.
        edges: pairs of a job and one that it started, or that waited for it.

    Example:
        ```python
        graph = await result.build_graph()
        for parent, child in graph.edges:
            print(parent.name, "->", child.name)
        print(graph.to_mermaid())
        ```
    """

    def __init__(self, root: AsyncResult[Any]) -> None:
        self.root = root
        self._children: dict[AsyncResult[Any], list[AsyncResult[Any]]] = {root: []}

    def connect(self, parent: AsyncResult[Any], child: AsyncResult[Any]) -> None:
        """Notes that one job came from another. For asyncq's own modules."""
        self._children.setdefault(child, [])
        self._children[parent].append(child)

    @property
    def nodes(self) -> list[AsyncResult[Any]]:
        """All jobs, in the order in which they were found, level by level."""
        return list(self._children)

    @property
    def edges(self) -> list[tuple[AsyncResult[Any], AsyncResult[Any]]]:
        """Pairs of a job and one that it started, or that waited for it."""
        return [(parent, child) for parent, children in self._children.items() for child in children]

    def children(self, node: AsyncResult[Any] | str) -> list[AsyncResult[Any]]:
        """Returns the handles of the jobs that came from one.

        Raises:
            KeyError: the job is not in the graph.
        """
        return list(self._children[node])  # type: ignore[index]  # a handle equals its id

    def __iter__(self) -> Iterator[AsyncResult[Any]]:
        return iter(self._children)

    def __len__(self) -> int:
        return len(self._children)

    def __contains__(self, node: object) -> bool:
        return node in self._children

    def __repr__(self) -> str:
        return f"<DependencyGraph of {len(self)} jobs below {self.root.id}>"

    # -- drawn --

    def to_dot(self) -> str:
        """Returns the graph in the language of Graphviz: `dot -Tsvg`.

        Example:
            ```python
            Path("jobs.dot").write_text(graph.to_dot())
            ```
        """
        lines = [
            f"digraph {_quoted(self.root.id)} {{",
            '    node [shape=box style="rounded,filled" fontname="sans-serif"];',
        ]
        for node in self:
            label = "\\n".join(map(_escaped, _lines(node)))
            lines.append(f'    {_quoted(node.id)} [label="{label}" fillcolor="{_colour(node)}"];')
        lines += [f"    {_quoted(parent.id)} -> {_quoted(child.id)};" for parent, child in self.edges]
        return "\n".join([*lines, "}", ""])

    def to_mermaid(self) -> str:
        r"""Returns the graph in the language of Mermaid, which many tools draw in Markdown pages.

        Example:
            ```python
            page.write_text(f"```mermaid\n{graph.to_mermaid()}```")
            ```
        """
        numbers = {node: f"n{number}" for number, node in enumerate(self)}
        lines = ["flowchart TD"]
        for node, number in numbers.items():
            label = "<br>".join(map(_coded, _lines(node)))
            lines += [f'    {number}["{label}"]', f"    style {number} fill:{_colour(node)}"]
        lines += [f"    {numbers[parent]} --> {numbers[child]}" for parent, child in self.edges]
        return "\n".join([*lines, ""])


def _lines(node: AsyncResult[Any]) -> list[str]:
    return [*filter(None, [node.name]), node.id, str(node.state)]


def _colour(node: AsyncResult[Any]) -> str:
    state = node.state
    return _COLOURS.get(state, _UNENDED) if isinstance(state, State) else _UNENDED


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _coded(text: str) -> str:
    """Writes each character that Mermaid may take for a part of its own language as its code."""
    return "".join(char if char.isalnum() or char in " ._:-" else f"#{ord(char)};" for char in text)
