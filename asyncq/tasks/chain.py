"""Chains: workflows of steps that run one after the other.

A chain is data. `plan` makes its jobs: each step's job waits for the handle of the step before. Nothing here
sends anything or needs a loop; see `workflow` for what all workflows share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from typing_extensions import TypeVar

from asyncq.tasks.options import FIRST, LAST, TABLE
from asyncq.tasks.workflow import SHOWN, Single, Workflow, members

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta
    from typing import Self

    from asyncq.client.application import App
    from asyncq.results.handle import AsyncResult
    from asyncq.tasks.planning import Handle, Plan
    from asyncq.tasks.workflow import NextStep

W = TypeVar("W")
R_co = TypeVar("R_co", covariant=True)
H_co = TypeVar("H_co", bound="AsyncResult[Any]", default="AsyncResult[R_co]", covariant=True)


@dataclass(slots=True, repr=False)
class Chain(Single[R_co, H_co]):
    """Steps one after the other: `a | b` and `chain(a, b)` make one. Each step gets the value of the step
    before it as its first argument.

    Attributes:
        steps: signatures, groups, and chains with error callbacks of their own; the last is no group. The
            step after a group waits for the whole group and gets the list of its values, as the body of
            Celery's chord does.
        error_callbacks: the calls that follow when any of the steps has failed.
    """

    steps: tuple[Workflow[Any], ...]
    error_callbacks: tuple[Any, ...] = ()

    def set(self, **options: Any) -> Self:
        """Gives the steps other options, see `Workflow.set`."""
        callbacks = options.pop("link_error", None)
        if callbacks is not None:
            self.error_callbacks = checked_error_callbacks(callbacks)
        spread(self.steps, options)
        return self

    def link(self, callback: Workflow[Any]) -> Self:
        """Makes a callback follow when the last step has ended well, see `Workflow.link`."""
        self.steps[-1].link(callback)
        return self

    def link_error(self, callback: Workflow[Any]) -> Self:
        """Makes a callback follow, once, when any of the steps has failed, see `Workflow.link_error`.

        The callback gets the id of the last step's job: that job fails with the exception of the step that
        failed.
        """
        self.error_callbacks += checked_error_callbacks(callback)
        return self

    @property
    def app(self) -> App | None:
        """The app of its tasks; None where there are none."""
        return self.steps[-1].app

    @property
    def _wait(self) -> float | timedelta | None:
        return self.steps[-1]._wait

    def _with(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Self:
        first, *others = self.steps
        steps = (first._with(args, kwargs), *(step.clone() for step in others))
        return type(self)(steps, self.error_callbacks)

    @property
    def _takes_more(self) -> bool:
        return self.steps[0]._takes_more

    def _following(self, first: Workflow[Any]) -> Chain[R_co, H_co]:
        return Chain((*first._steps(), *self._steps()))

    def _steps(self) -> tuple[Workflow[Any], ...]:
        if self.error_callbacks:
            # The error callbacks are for these steps, and not for steps that are joined before or after them.
            return (self.clone(),)
        return tuple(step.clone() for step in self.steps)

    def plan(self, plan: Plan, source: Handle | None) -> H_co:
        """Adds its jobs to a plan, see `Workflow.plan`. For asyncq's own modules."""
        handle: Any = source
        begin = len(plan.steps)
        for step in self.steps:
            handle = step.plan(plan, handle)
        plan.follow(handle, (), self.error_callbacks, plan.steps[begin:])
        last: H_co = handle
        return last

    def __repr__(self) -> str:
        shown = [repr(step) for step in self.steps[:SHOWN]]
        if len(self.steps) > SHOWN:
            shown.append(f"... {len(self.steps) - SHOWN:,} more")
        return f"({' | '.join(shown)})"


def checked_error_callbacks(given: Any) -> tuple[Any, ...]:
    """Returns copies of error callbacks, which may be given as one or as a list.

    Raises:
        TypeError: one of them is not a signature.
    """
    callbacks: tuple[Any, ...] = TABLE["link_error"].check("link_error", given)
    return callbacks


def spread(steps: tuple[Workflow[Any], ...], options: dict[str, Any]) -> None:
    """Gives options to the steps of a chain: some go to the first step, some to the last, others to all."""
    for index, step in enumerate(steps):
        about = {
            name: value
            for name, value in options.items()
            if (name not in FIRST or index == 0) and (name not in LAST or index == len(steps) - 1)
        }
        if about:
            step.set(**about)


@overload
def chain(*steps: *tuple[*tuple[Workflow[Any], ...], NextStep[W]]) -> W: ...


@overload
def chain(*steps: Workflow[Any]) -> Any: ...  # pyright: ignore[reportOverlappingOverload]  # it is for `*many`


@overload
def chain(steps: Iterable[Workflow[Any]], /) -> Any: ...


def chain(*steps: Any) -> Any:  # type: ignore[misc]  # mypy asks for the tuple that the first one has
    """Joins steps, given one by one or as one iterable, one after the other: `chain(a, b, c)` is `a | b | c`.

    Each step gets the value of the step before it as its first argument, unless it is immutable
    (`task.si(...)`). The value of the whole is that of the last step. A chain that ends in a group is a
    group.

    Raises:
        TypeError: a step is not a workflow.
        ValueError: no steps.

    Example:
        ```python
        assert await chain(add.s(2, 2), add.s(4), double.s()).call() == 16
        ```
    """
    given = members(steps, "a chain")
    if not given:
        raise ValueError("a chain needs at least one step")
    steps = tuple(part for step in given[:-1] for part in step._steps())
    last = given[-1]
    return (
        last._following(Chain(steps)) if steps else Chain(last._steps()) if isinstance(last, Single) else last
    )
