"""The schedules that this process declares in code: those of `@app.task(every=...)` and
`@app.task(cron=...)`.

Registration touches no server and runs on any thread. A worker stores the declarations when it begins.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from asyncq.schedules.definition import Definition
from asyncq.schedules.terms import Terms
from asyncq.short_repr import brief
from asyncq.system import clock

if TYPE_CHECKING:
    from asyncq.tasks.job_builder import JobBuilder
    from asyncq.tasks.options import Options

_OPTIONS = ("every", "cron", "tz", "catch_up", "overlap", "jitter", "start", "until", "max_runs")
_NAME = re.compile(r"[!-~]{1,400}")
"""What a schedule in code may be called: it is named as its task, and a part of the ids of its jobs."""


class Declarations:
    """The schedules in code of one app.

    Attributes:
        since: when this process declared its schedules first, in ms by the server's clock; None before that.
            Of two processes that declare a schedule differently, the later one is right.
        changes: how often a schedule was noted or dropped.
    """

    def __init__(self) -> None:
        self.since: int | None = None
        self.changes: int = 0
        self._found: dict[str, tuple[JobBuilder, Terms]] = {}
        self._are_left_out = False

    def check(self, builder: JobBuilder, options: Options) -> Terms | None:
        """Returns the terms on which a task is scheduled; None if its options schedule nothing.

        Raises:
            ValueError: a wrong cron text, zone or value, or the task's name cannot be that of a schedule.
            TypeError: the task has required arguments, or the options contradict each other.
            ImportError: the extra that reads cron texts is not installed.
        """
        given: dict[str, Any] = {name: getattr(options, name) for name in _OPTIONS}
        if given["every"] is None and given["cron"] is None:
            without_rule = [name for name in _OPTIONS if name in vars(options)]
            if without_rule:
                raise TypeError(
                    f"{without_rule[0]}= is an option of schedules, and this task has none: give every= or "
                    "cron= with it"
                )
            return None
        terms = Terms.of(given, clock.now())
        rule = "every=" if given["every"] is not None else "cron="
        try:
            builder.check((), {})
        except TypeError as error:
            raise TypeError(
                f"{rule} calls the task without arguments, and that does not fit: {error}"
            ) from None
        if not _NAME.fullmatch(builder.name):
            raise ValueError(
                f"{rule} makes a schedule with the name of the task, and {brief(builder.name)} cannot be "
                "one: give @app.task(name=...) of ASCII characters without spaces"
            )
        return terms

    def put(self, builder: JobBuilder, terms: Terms | None) -> None:
        """Notes the schedule of a task, or that it has none (any more)."""
        if terms is not None:
            self._found[builder.name] = builder, terms
        elif self._found.pop(builder.name, None) is None:
            return
        self.changes += 1

    def leave_out(self) -> None:
        """Makes the workers of this process declare nothing, whatever is noted later: other workers do."""
        self._are_left_out = True
        self.changes += 1

    def definitions(self) -> dict[str, Definition]:
        """Returns the definitions by name. They follow the settings of the app as they are now."""
        found = {} if self._are_left_out else self._found
        return {
            name: Definition.of(name, terms, builder, (), {})
            for name, (builder, terms) in list(found.items())
        }
