"""Groups and chords: workflows of steps that run side by side.

A group is data. `plan` makes its jobs, and its handle is a `GroupResult` with the handles of the members.
Nothing here sends anything or needs a loop; see `workflow` for what all workflows share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from typing_extensions import TypeVar

from asyncq.results.groupresult import GroupResult
from asyncq.short_repr import brief
from asyncq.tasks.chain import Chain, spread
from asyncq.tasks.options import FIRST
from asyncq.tasks.planning import check_depth
from asyncq.tasks.workflow import SHOWN, Workflow, members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta
    from typing import Self

    from asyncq.client.application import App
    from asyncq.results.handle import AsyncResult
    from asyncq.tasks.planning import Handle, Plan
    from asyncq.tasks.workflow import NextStep

R = TypeVar("R")
T = TypeVar("T")
W = TypeVar("W")
M = TypeVar("M", bound="AsyncResult[Any]", default="AsyncResult[T]")
"""The handle of a member."""


@dataclass(slots=True, repr=False)
class Group(Workflow[list[T], GroupResult[T, M], GroupResult[T]]):
    """Steps side by side: `group(...)` makes one. Its value is the list of the members' values.

    Attributes:
        members: signatures, chains and groups.
        before: the steps that all members wait for, in `before | group(...)`; each member gets the value of
            the last of these steps.
        callbacks: the workflows that follow when all members have ended well.
        wait: how long `call` waits, in seconds.
    """

    members: tuple[Workflow[T, M], ...]
    before: tuple[Workflow[Any], ...] = ()
    callbacks: tuple[Workflow[Any], ...] = ()
    wait: float | timedelta | None = None

    def set(self, **options: Any) -> Self:
        """Gives the members, and the steps before them, other options, see `Workflow.set`.

        Raises:
            ValueError: a `task_id`: several jobs cannot share one.
        """
        if options.get("task_id") is not None:
            raise ValueError("task_id= is the id of one job; give the members of a group ids of their own")
        self.wait = options.pop("wait", self.wait)
        callbacks = options.pop("link", None)
        if callbacks is not None:
            self.callbacks = members((callbacks,), "link=")
        if self.before:
            early = {name: options.pop(name) for name in FIRST & options.keys()}
            spread(self.before[:1], early)
            error_callbacks = options.get("link_error")
            if error_callbacks is not None:
                self._as_one_before().set(link_error=error_callbacks)
            shared = {
                name: value for name, value in options.items() if name not in {"ignore_result", "link_error"}
            }
            for step in self.before:
                step.set(**shared)
        for one in self.members:
            one.set(**options)
        return self

    def link(self, callback: Workflow[Any]) -> Self:
        """Makes a callback follow, once, when all members have ended well, see `Workflow.link`: it gets the
        list of their values.
        """
        self.callbacks += members((callback,), "link")
        return self

    def link_error(self, callback: Workflow[Any]) -> Self:
        """Makes a callback follow for each member that fails, and once when any of the steps before them has
        failed, see `Workflow.link_error`.
        """
        if self.before:
            self._as_one_before().link_error(callback)
        for one in self.members:
            one.link_error(callback)
        return self

    def _as_one_before(self) -> Chain[Any]:
        """Replaces the steps before the members by one chain, which can have error callbacks of its own, and
        returns that chain. It may end in a group.
        """
        if len(self.before) == 1 and isinstance(self.before[0], Chain):
            return self.before[0]
        whole: Chain[Any] = Chain(self.before)
        self.before = (whole,)
        return whole

    @property
    def app(self) -> App | None:
        """The app of its tasks; None where there are none."""
        apps = (one.app for one in (*self.before, *self.members, *self.callbacks))
        return next((app for app in apps if app is not None), None)

    @property
    def _wait(self) -> float | timedelta | None:
        return self.wait

    def _with(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Self:
        before, inside = [one.clone() for one in self.before], [one.clone() for one in self.members]
        if before:
            before[0] = before[0]._with(args, kwargs)
        elif args or kwargs:
            inside = [one._with(args, kwargs) if one._takes_more else one for one in inside]
        return type(self)(tuple(inside), tuple(before), self.callbacks, self.wait)

    @property
    def _takes_more(self) -> bool:
        return any(one._takes_more for one in self.before[:1] or self.members)

    def _following(self, first: Workflow[Any]) -> Group[T, M]:
        other = self.clone()
        other.before = (*first._steps(), *other.before)
        return other

    def _steps(self) -> tuple[Workflow[Any], ...]:
        other = self.clone()
        before, other.before = other.before, ()
        return (*before, other)

    def plan(self, plan: Plan, source: Handle | None) -> GroupResult[T, M]:
        """Adds its jobs to a plan, see `Workflow.plan`. For asyncq's own modules."""
        for step in self.before:
            source = step.plan(plan, source)
        awaited = plan.gathered(source, len(self.members))
        results = [one.plan(plan, awaited) for one in self.members]
        for result in results:
            _cut(result, awaited)
        handle: GroupResult[T, M] = GroupResult(None, results, source, self.app)
        check_depth(handle)
        plan.follow(handle, self.callbacks, (), ())
        return handle

    def __repr__(self) -> str:
        before = "".join(f"{step!r} | " for step in self.before[:SHOWN])
        if len(self.before) > SHOWN:
            before += f"... {len(self.before) - SHOWN:,} more | "
        shown = [repr(one) for one in self.members[:SHOWN]]
        if len(self.members) > SHOWN:
            shown.append(f"... {len(self.members) - SHOWN:,} more")
        return f"{before}group({', '.join(shown)})"


def _cut(result: Any, source: Handle | None) -> None:
    """Removes from a member's handle what the group came after: only the group's own handle names it.

    If each member named it, the description of groups one after the other would grow with the product of
    their sizes.
    """
    while result.parent is not source:
        result = result.parent
    result.parent = None


@overload
def group(members: Iterable[Workflow[T, M, object]], /) -> Group[T, M]: ...


@overload
def group(*members: Workflow[T, M, object]) -> Group[T, M]: ...


@overload
def group(members: Iterable[Workflow[R, object, object]], /) -> Group[R, Any]: ...


@overload
def group(*members: Workflow[R, object, object]) -> Group[R, Any]: ...


def group(*given: Any) -> Any:
    """Makes a group of steps, given one by one or as one iterable. Its value is the list of their values.

    The step after a group, as in `group(...) | total.s()`, waits for all of its members and gets that list.

    Raises:
        TypeError: a member is not a workflow.

    Example:
        ```python
        assert await group(add.s(n, n) for n in range(3)).call() == [0, 2, 4]
        ```
    """
    return Group(members(given, "a group"))


@overload
def chord(header: Group[Any, Any] | Iterable[Workflow[Any]], body: NextStep[W]) -> W: ...


@overload
def chord(
    header: Group[Any, Any] | Iterable[Workflow[Any]], body: None = None
) -> Callable[[NextStep[W]], W]: ...


def chord(header: Any, body: Any = None) -> Any:
    """Makes a chord, `group(header) | body`: the body waits for the group and gets the list of its values.

    With an empty header the body is called with an empty list. `chord(header)(body)` is the same as
    `chord(header, body)`: a workflow, to be sent with `delay`.

    Args:
        header: a group, or its members.
        body: the step after the group; without it, `chord` returns a function that takes the body.

    Raises:
        TypeError: the header or the body is not made of workflows.

    Example:
        ```python
        assert await chord([add.s(1, 1), add.s(2, 2)], total.s()).call() == 6
        ```
    """
    first = (
        header.clone() if isinstance(header, Group) else Group(members((header,), "the header of a chord"))
    )
    if body is None:
        return lambda later: chord(first, later)
    if not isinstance(body, Workflow):
        raise TypeError(f"the body of a chord is a call such as total.s(), not {brief(body)}")
    return body._following(first)
