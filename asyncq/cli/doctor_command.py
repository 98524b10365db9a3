"""`asyncq doctor`: finds out why jobs do not run, or may get lost, and says what to do.

The looks themselves are in `doctor/`, which no other command needs: it is imported when the command runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from asyncq.cli import console, loop
from asyncq.cli.exits import Code
from asyncq.cli.invocation import Invocation, command


@command
def doctor(
    ctx: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(metavar="MODULE:APP", help="The app. Default: ASYNCQ_APP or [tool.asyncq] app."),
    ] = None,
    config: Annotated[
        bool, typer.Option("--config", help="Print each setting, its value and its source.")
    ] = False,
    acl: Annotated[bool, typer.Option("--acl", help="Print users with the rights that are needed.")] = False,
) -> int:
    """Finds out why jobs do not run, or may get lost.

    Looks at the versions, the app, the settings, the server and its clock, whether it keeps jobs, the rights
    of its user, workers, queues and schedules. Exit code 1 if one of these has an error; warnings do not
    count.

    \b
    Examples:
      asyncq doctor shop.tasks:app
      asyncq doctor --json | jq '.findings[] | select(.grade != "ok")'
      asyncq doctor --config
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    from asyncq.cli.doctor import acl as acl_users, examination

    invocation: Invocation = ctx.obj
    invocation.begin()
    if acl:
        app, _ = examination.app_of(target, invocation)
        settings = app.settings
        lines = acl_users.users(settings.namespace, _kind_of(settings.url), replicas=settings.replicas > 0)
        console.data("\n".join(lines))
        return Code.OK
    if config:
        return examination.print_settings(examination.app_of(target, invocation)[0], invocation)
    return loop.run(examination.examine(target, invocation))


def _kind_of(url: str) -> str:
    """Returns `cluster` or `sentinel` if that is what the URL leads to, else an empty text."""
    scheme = url.partition("://")[0]
    return scheme.partition("+")[2] if "+" in scheme and not scheme.endswith("unix") else ""
