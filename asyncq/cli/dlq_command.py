"""`asyncq dlq`: lists and shows the dead letters, enqueues their jobs again, or deletes them.

Each command opens the app, calls `app.control.dead`, and prints. `Selection` decides which letters a command
is for.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncq.cli import console, job_ids, last_job, loop, parameters, target as targets
from asyncq.cli.confirmation import confirmed
from asyncq.cli.exits import Code
from asyncq.cli.invocation import command
from asyncq.logs import escaped

if TYPE_CHECKING:
    from asyncq.app import AsyncQ
    from asyncq.control.dead_letters import DeadLetter

dlq: typer.Typer = typer.Typer(
    help="Lists, shows, requeues and deletes dead letters: jobs that asyncq gave up.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_EVERY = 2**31
"""A limit above any `dead_cap`: the workers' setting of it is not known here."""
_ID = re.compile(r"\d{13,}-\d+.*")
"""The id of a letter. What begins like one may be the beginning of a longer one, and is taken as it is."""
_BATCH = 1000
"""How many letters one command to the server deletes: other clients' jobs wait no longer than that takes."""

Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="Ids of letters; - reads them from stdin, one per line."),
]
All = Annotated[bool, typer.Option("--all", help="All letters.")]
Named = Annotated[str | None, typer.Option("--task", metavar="TASK", help="The letters of this task.")]


@dlq.command(name="ls")
@command
def ls(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many to list at most.")] = 100,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON document per line.")] = False,
) -> int:
    """Lists the dead letters, newest first.

    Columns: id, time, queue, task, reason, error.

    \b
    Examples:
      asyncq dlq ls --limit 20
      asyncq dlq ls --json | jq '.[0].traceback'
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = targets.prepared(ctx.obj)

    async def show() -> int:
        async with app:
            letters = await app.control.dead.list(limit)
        console.listing(letters, _row, json=invocation.json, jsonl=jsonl, tree=_tree)
        if not invocation.quiet:
            _say_how_many(len(letters), limit)
        return Code.OK

    return loop.run(show())


@dlq.command(name="show")
@command
def show(
    ctx: typer.Context, id_: Annotated[str, typer.Argument(metavar="ID", help="The letter's id.")]
) -> int:
    """Shows a dead letter: its job, why it was given up, and the traceback of its last try.

    Exit code 3 if there is no such letter.

    \b
    Example:
      asyncq dlq show 1795010101010-0
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = targets.prepared(ctx.obj)

    async def show_letter() -> int:
        async with app:
            letters = {letter.id: letter for letter in await app.control.dead.list(_EVERY)}
        letter = letters.get(job_ids.one_of(id_, job_ids.letters_of(letters), "letter", surely=True))
        if letter is None:
            _complain_of_none(id_)
            return Code.NOT_FOUND
        tree = _tree(letter)
        if invocation.json:
            console.document(tree)
            return Code.OK
        traceback = tree.pop("traceback")
        tree["error"] = None if tree["error"] is None else tree["error"].partition("\n")[0]
        rows = [(name, escaped(str(value))) for name, value in tree.items() if value not in (None, "")]
        console.data(console.aligned(rows, indent="") + (f"\n\n{traceback.rstrip()}" if traceback else ""))
        return Code.OK

    return loop.run(show_letter())


async def _letters(app: AsyncQ, ids: list[str]) -> list[str]:
    """Returns the ids of letters. What is too short for an id is the beginning of one."""
    if all(_ID.fullmatch(id_) for id_ in ids):
        return ids
    seen = job_ids.letters_of(letter.id for letter in await app.control.dead.list(_EVERY))
    return [job_ids.one_of(id_, seen, "letter", surely=True) for id_ in ids]


@dlq.command(name="requeue")
@command
def requeue(ctx: typer.Context, ids: Ids = None, every: All = False, task: Named = None) -> int:
    """Sends the jobs of dead letters again, as new jobs, oldest first.

    Prints the id of each letter and of its new job, and deletes the letter. Exit code 3 if there is no such
    letter, 1 if a letter holds nothing that can be sent.

    \b
    Examples:
      asyncq dlq requeue 1795010101010-0
      asyncq dlq requeue --task shop.tasks.charge
      asyncq dlq ls --jsonl | jq -r .id | asyncq dlq requeue -
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = targets.prepared(ctx.obj)
    selection = Selection.of(ids, task, every=every)
    rows: list[dict[str, str]] = []

    async def requeue_all() -> int:
        async with app:
            if selection.ids is not None:
                chosen = await _letters(app, selection.ids)
            else:
                chosen = await _ids_of(app, selection)
            codes = [await _requeued(app, id_, rows, as_json=invocation.json) for id_ in chosen]
        if not chosen and not invocation.quiet:
            console.say("no dead letters to send again")
        return max(codes, default=Code.OK)

    try:
        return loop.run(requeue_all())
    finally:
        # If the server fails on the way, the user must still see which jobs were sent until then.
        if invocation.json:
            console.document(rows)


@dlq.command(name="purge")
@command
def purge(
    ctx: typer.Context,
    ids: Ids = None,
    every: All = False,
    task: Named = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be deleted.")] = False,
) -> int:
    """Deletes dead letters for good.

    It shows how many, and asks; without a terminal it needs --yes. Exit code 3 if there is no such letter.

    \b
    Examples:
      asyncq dlq purge --task shop.tasks.charge --dry-run
      asyncq dlq purge --all --yes
    """  # noqa: D301  \b is typer's mark for lines that stay as they are
    invocation, app = targets.prepared(ctx.obj)
    selection = Selection.of(ids, task, every=every)

    async def purge_all() -> int:
        async with app:
            letters = selection.among(await app.control.dead.list(_EVERY))
            if dry_run and letters and not invocation.json:
                console.data(_table(letters))
            deleted = 0
            if letters and not dry_run and (yes or await _confirmed(len(letters))):
                deleted = await _delete(app, [letter.id for letter in letters])
        if invocation.json:
            console.document({"found": len(letters), "deleted": deleted})
        elif not invocation.quiet:
            console.say(f"{_count(len(letters))} found, {deleted:,} deleted")
        missing = selection.missing(letters)
        for id_ in missing:
            _complain_of_none(id_)
        return Code.NOT_FOUND if missing else Code.OK

    return loop.run(purge_all())


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """Which letters a command is for: those of some ids, those of one task, or all."""

    ids: list[str] | None
    task: str | None

    @classmethod
    def of(cls, ids: list[str] | None, task: str | None, *, every: bool) -> Selection:
        """Makes the selection of a command line, which must give exactly one of ids, --task and --all.

        Raises:
            typer.BadParameter: it gives none or several. None does not mean all: `purge --yes $ids` in a
                script whose variable is empty must not delete everything.
        """
        if sum((bool(ids), task is not None, every)) != 1:
            raise typer.BadParameter("write ids, or --task, or --all", param_hint="ID")
        return cls(parameters.ids(ids) if ids else None, task)

    def among(self, letters: list[DeadLetter]) -> list[DeadLetter]:
        """Returns those of the letters that are selected."""
        if self.ids is not None:
            ids = set(self.ids)
            return [letter for letter in letters if letter.id in ids]
        return [letter for letter in letters if self.task in (None, letter.task)]

    def missing(self, found: list[DeadLetter]) -> list[str]:
        """Returns the selected ids for which no letter was found."""
        known = {letter.id for letter in found}
        return [id_ for id_ in self.ids or () if id_ not in known]


async def _ids_of(app: AsyncQ, selection: Selection) -> list[str]:
    """Returns the ids of the selected letters, oldest first. They are listed only once: a job that fails
    again at once makes a new letter, which would else be sent again for ever.
    """
    letters = await app.control.dead.list(_EVERY)
    return [letter.id for letter in reversed(selection.among(letters))]


async def _requeued(app: AsyncQ, id_: str, rows: list[dict[str, str]], *, as_json: bool) -> Code:
    """Enqueues one letter's job again. Adds its id to `rows`, and prints it unless `as_json`."""
    try:
        handle = await app.control.dead.replay(id_)
    except LookupError:
        _complain_of_none(id_)
        return Code.NOT_FOUND
    except ValueError as error:
        console.complain(str(error), f"delete it: asyncq dlq purge {id_}")
        return Code.FAILED
    rows.append({"id": id_, "job_id": handle.id})
    last_job.note(handle.id)
    if not as_json:
        console.data(f"{id_}  {handle.id}")
    return Code.OK


async def _confirmed(count: int) -> bool:
    return await confirmed(f"Delete {_count(count)} for good?", f"this deletes {_count(count)} for good")


async def _delete(app: AsyncQ, ids: list[str]) -> int:
    batches = [ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH)]
    return sum([await app.control.dead.delete(batch) for batch in batches])


def _say_how_many(shown: int, limit: int) -> None:
    if not shown:
        console.say("no dead letters")
    elif shown == limit:
        console.say(f"these are the newest {limit:,}; there may be more, see --limit")


def _complain_of_none(id_: str) -> None:
    console.complain(f"no dead letter under the id {id_!r}", "asyncq dlq ls lists the letters")


def _count(letters: int) -> str:
    return f"{letters:,} dead letter{'s' * (letters != 1)}"


def _tree(letter: DeadLetter) -> dict[str, Any]:
    fields = {field.name: getattr(letter, field.name) for field in dataclasses.fields(letter)}
    return {**fields, "error": None if letter.error is None else console.named(letter.error)}


def _table(letters: list[DeadLetter]) -> str:
    return console.aligned([_row(letter) for letter in letters], indent="")


def _row(letter: DeadLetter) -> tuple[str, ...]:
    """Formats a letter as one line. Line breaks in its texts are escaped, so nobody can forge a line."""
    at = "?" if letter.at is None else f"{letter.at:%Y-%m-%d %H:%M:%SZ}"
    error = "" if letter.error is None else console.named(letter.error).partition("\n")[0]
    cells = (letter.id, at, letter.queue or "?", letter.task or "?", letter.reason, error)
    return tuple(escaped(cell) for cell in cells)
