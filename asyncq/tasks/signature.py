"""Signatures: one call of a task as data, the smallest workflow. `task.s(...)` and `task.si(...)` make them.

A signature can be changed (`set`, `link`), compared and pickled. It needs no server and no loop until it is
sent; see `workflow` for what all workflows share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from typing_extensions import TypeVar

from asyncq.client.sessions import the_only_app
from asyncq.tasks.chain import Chain
from asyncq.tasks.workflow import Single, shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from typing import Self

    from asyncq.client.application import App
    from asyncq.results.handle import AsyncResult
    from asyncq.tasks.options import Options
    from asyncq.tasks.planning import Handle, Plan
    from asyncq.tasks.task import Task
    from asyncq.tasks.workflow import Workflow

R_co = TypeVar("R_co", covariant=True)
H_co = TypeVar("H_co", bound="AsyncResult[Any]", default="AsyncResult[R_co]", covariant=True)


@dataclass(slots=True, eq=False, repr=False)
class Signature(Single[R_co, H_co]):  # noqa: PLW1641 - its options can be changed, so it cannot be a key
    """One call of a task, not made yet: `task.s(...)` and `task.si(...)` make one.

    It may have fewer arguments than the task needs: the missing first ones are given when it is sent, or are
    the value of the step before it. Two signatures are equal if task, options and arguments are. A signature
    can be pickled; the process that unpickles it must have exactly one app.

    Attributes:
        task: the task, with the options of the call.
        args: positional arguments.
        kwargs: keyword arguments.
        immutable: whether it is complete and takes no value from the step before it.

    Example:
        ```python
        increment = add.s(1)
        assert await increment.call(4) == 5
        ```
    """

    task: Task[..., R_co, H_co]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    immutable: bool = False

    def set(self, **options: Any) -> Self:
        """Gives the call other options, see `Task.options`, and returns the signature itself.

        Raises:
            ValueError: a value does not fit; the message says what would fit.
            TypeError: an unknown option.

        Example:
            ```python
            await add.s(1, 2).set(countdown=10).delay()
            ```
        """
        self.task = self.task.options(**options)
        return self

    def link(self, callback: Workflow[Any]) -> Self:
        """Makes a callback follow when the call has ended well, see `Workflow.link`."""
        return self.set(link=[*self._options.links, callback])

    def link_error(self, callback: Workflow[Any]) -> Self:
        """Makes a callback follow when the call has failed, see `Workflow.link_error`."""
        return self.set(link_error=[*self._options.error_links, callback])

    @property
    def _options(self) -> Options:
        return self.task.builder.options

    @property
    def app(self) -> App:
        """The app of the task."""
        return self.task.app

    @property
    def _wait(self) -> float | timedelta | None:
        return self._options.wait

    def _with(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Self:
        if args or kwargs:
            if self.immutable:
                raise TypeError(f"{self!r} is immutable and takes no more arguments; make it with .s(...)")
            self.task.builder.check_part((*args, *self.args), {**self.kwargs, **kwargs})
        return type(self)(self.task, (*args, *self.args), {**self.kwargs, **kwargs}, self.immutable)

    @property
    def _takes_more(self) -> bool:
        return not self.immutable

    def _following(self, first: Workflow[Any]) -> Chain[R_co, H_co]:
        return Chain((*first._steps(), self.clone()))

    def _steps(self) -> tuple[Workflow[Any], ...]:
        return (self.clone(),)

    def plan(self, plan: Plan, source: Handle | None, *, failing: Sequence[str] | None = None) -> H_co:
        """Adds the job of the call to a plan, and those of its callbacks; see `Workflow.plan`. For asyncq's
        own modules.
        """
        handle = plan.add(self, source, failing=failing)
        plan.follow(handle, self._options.links, self._options.error_links, [handle.id])
        return cast("H_co", handle)

    def _content(self) -> tuple[Any, ...]:
        return self.task.name, self._options, self.args, self.kwargs, self.immutable

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Signature):
            return NotImplemented
        return self.task.app is other.task.app and self._content() == other._content()

    def __repr__(self) -> str:
        return f"{self.task.name}({shown(self.args, self.kwargs)})"

    def __reduce__(self) -> Any:
        return _restored, self._content()


def _restored(
    name: str, options: Options, args: tuple[Any, ...], kwargs: dict[str, Any], immutable: bool
) -> Signature[Any]:
    task: Any = the_only_app().task_named(name)  # the app of the process that unpickles it
    return Signature(task.with_options(options), args, kwargs, immutable)
