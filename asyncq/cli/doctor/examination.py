"""Makes the looks of `asyncq doctor` one after the other, and prints what they find.

Each one that fails ends only itself, or those that need it: without an app the server is looked at, and
without a server the app.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from asyncq.broker.transport.server_error import ServerError
from asyncq.cli import console, target as targets
from asyncq.cli.doctor import local_checks, server_checks, work_checks
from asyncq.cli.doctor.diagnosis import error
from asyncq.cli.exits import CliError, Code, explained
from asyncq.errors import AsyncQError

if TYPE_CHECKING:
    from asyncq.app import AsyncQ
    from asyncq.cli.doctor.diagnosis import Diagnosis
    from asyncq.cli.invocation import Invocation

_MARKS = {"ok": ("ok", ""), "warning": ("warning", "33"), "error": ("error", "31")}


def app_of(target: str | None, invocation: Invocation) -> tuple[AsyncQ, str | None]:
    """Returns the app and its full name; a bare app without a name if none is named."""
    named = target or targets.configured(invocation)
    if named is None:
        return targets.load_or_bare(invocation), None
    app = targets.load(named, invocation)
    return app, targets.full_name(named, app)


def print_settings(app: AsyncQ, invocation: Invocation) -> int:
    """Prints each setting with its value and its source. Returns the exit code."""
    rows = local_checks.settings(app, invocation.settings)
    if invocation.json:
        console.document({name: {"value": value, "source": source} for name, value, source in rows})
    else:
        console.data(console.aligned(rows, indent=""))
    return Code.OK


async def examine(target: str | None, invocation: Invocation) -> int:
    """Makes all looks, and prints what each has found. Returns the exit code."""
    found: list[Diagnosis] = []

    def add(*findings: Diagnosis) -> None:
        found.extend(findings)
        if not invocation.json:
            for finding in findings:
                _print(finding)

    add(local_checks.versions(), *local_checks.variables())
    start = time.perf_counter()
    try:
        app, name = app_of(target, invocation)
    except CliError as broken:
        add(error("app", str(broken), broken.hint))
        app, name = targets.bare(**invocation.settings), None
    else:
        add(local_checks.app_found(app, name, time.perf_counter() - start))
    add(local_checks.project(app, invocation.settings))
    targets.use_short_timeouts(app)
    try:
        async with app:
            add(*await server_checks.look(app))
            add(*await work_checks.look(app, name or "MODULE:APP"))
    except (AsyncQError, ServerError) as refused:
        why = explained(refused)
        add(error("server", str(why), why.hint))
    errors = sum(finding.grade == "error" for finding in found)
    warnings = sum(finding.grade == "warning" for finding in found)
    if invocation.json:
        console.document({"errors": errors, "warnings": warnings, "findings": found})
    elif not invocation.quiet:
        console.say(f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    return Code.FAILED if errors else Code.OK


def _print(finding: Diagnosis) -> None:
    word, color = _MARKS[finding.grade]
    mark = f"{word:7}"
    console.data(
        f"{console.colored(mark, color, sys.stdout) if color else mark}  {finding.check}: {finding.text}"
    )
    for line in finding.fix.splitlines():
        console.data(f"{'':9}fix: {line.strip()}")
