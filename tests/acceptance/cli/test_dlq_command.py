"""`asyncq dlq`: dead letters of a real worker are listed, sent again and deleted by real processes."""

import asyncio
import json
import os
import signal

import pytest

from asyncq import NotRegistered, Retry, Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
async def letters(app):
    """Three dead letters as the app lists them: of the unknown `refund`, then two of `charge`."""

    @app.task(name="charge", retry=Retry(max_retries=1, backoff=0))
    async def charge(cents: int) -> int:
        if not app.is_fixed:
            raise ValueError("no \x1b[2J\nsuch luck")
        return cents

    app.is_fixed = False
    async with Worker(app):
        for cents in (1, 2):
            with pytest.raises(ValueError, match="luck"):
                await charge.call(cents)
        lost = await app.send("refund", (3,))
        with pytest.raises(NotRegistered):
            await lost.get(timeout=30)
    return await app.control.dead.list()


@pytest.fixture
def server_environ(server_url, namespace):
    return {"ASYNCQ_URL": server_url, "ASYNCQ_NAMESPACE": namespace}


@pytest.fixture
def dlq(project, server_environ):
    """Runs commands one after the other in one process, beside the loop."""

    async def dlq(*commands):
        project.environ |= server_environ
        return await asyncio.to_thread(project.run_each, *(("dlq", *command.split()) for command in commands))

    return dlq


def last(ended):
    """Returns the last line for the user. Above it there may be a message about the server."""
    return ended.err.splitlines()[-1]


async def test_dead_letters_are_listed_newest_first_in_columns_and_as_json(letters, dlq):
    shown, newest, tree, lines = await dlq("ls", "ls --limit 1", "ls --json", "ls --jsonl --limit 2")
    rows = shown.out.splitlines()
    assert [row.split()[0] for row in rows] == [letter.id for letter in letters]
    assert rows[0].split()[3:7] == ["default", "refund", "not", "registered"]
    assert rows[1].endswith(r"  default  charge  retries used up  ValueError: no \x1b[2J"), rows[1]
    assert (newest.out.count("\n"), last(newest)) == (
        1,
        "these are the newest 1; there may be more, see --limit",
    )
    trees = json.loads(tree.out)
    assert [each["job_id"] for each in trees] == [letter.job_id for letter in letters]
    assert trees[1]["error"] == "ValueError: no \x1b[2J\nsuch luck"
    assert "in charge" in trees[1]["traceback"]
    assert [json.loads(line) for line in lines.out.splitlines()] == trees[:2]


async def test_requeue_sends_jobs_again_oldest_first_and_deletes_their_dead_letters(app, letters, dlq):
    app.is_fixed = True
    refund, second, first = letters
    charged, unknown, none = await dlq(
        "requeue --task charge", f"requeue {second.id} nonsense -q", "requeue --task charge"
    )
    sent = [line.split("  ") for line in charged.out.splitlines()]
    assert (charged.code, [id_ for id_, _ in sent]) == (0, [first.id, second.id]), charged
    async with Worker(app):
        assert [await app.AsyncResult(job).get(timeout=30) for _, job in sent] == [1, 2]
    assert (unknown.code, unknown.out) == (3, "")
    assert "no dead letter under the id 'nonsense'" in unknown.err
    assert (none.code, last(none)) == (0, "no dead letters to send again")
    assert [letter.id for letter in await app.control.dead.list()] == [refund.id]


async def test_requeue_prints_the_sent_jobs_as_json_and_unknown_ids_on_stderr(app, letters, dlq):
    newest, *_ = letters
    (ended,) = await dlq(f"requeue {newest.id} 1-1 --json")
    ((id_, job),) = [each.values() for each in json.loads(ended.out)]
    assert (ended.code, id_) == (3, newest.id)
    assert "no dead letter under the id '1-1'" in ended.err
    assert await app.AsyncResult(job).exists()


async def test_requeue_of_a_dead_letter_without_a_message_exits_1(app, dlq):
    broker = app.sessions.current().broker
    await broker.commands.send(
        broker.shards[0], "XADD", broker.shards[0].dead, "*", "why", "no job", "q", "default"
    )
    (letter,) = await app.control.dead.list()
    (ended,) = await dlq(f"requeue {letter.id}")
    assert (ended.code, ended.out) == (1, "")
    assert f"delete it: asyncq dlq purge {letter.id}" in ended.err


async def test_requeue_reads_ids_from_stdin(app, letters, project, server_environ):
    read, write = os.pipe()
    process = project.start("dlq", "requeue", "-", stdin=read, **server_environ)
    os.close(read)
    with os.fdopen(write, "w") as ids:
        ids.writelines(f"{letter.id}\n" for letter in letters)
    out, err = await asyncio.to_thread(process.communicate, timeout=60)
    assert (process.returncode, [line.split()[0] for line in out.splitlines()]) == (
        0,
        [letter.id for letter in letters],
    ), err
    assert await app.control.dead.list() == []


async def test_purge_deletes_only_what_was_named_and_only_after_a_confirmation(app, letters, dlq):
    refused, dry, unnamed, both, some, all_, nothing = await dlq(
        "purge --all",
        "purge --task charge --dry-run",
        "purge --yes",
        "purge 1-1 --all --yes",
        f"purge {letters[0].id} 1-1 --yes --json",
        "purge --all --yes",
        "purge --all",
    )
    assert (refused.code, "error: this deletes 3 dead letters for good\n" in refused.err) == (2, True), (
        refused
    )
    assert [line.split()[0] for line in dry.out.splitlines()] == [letter.id for letter in letters[1:]]
    assert (dry.code, last(dry)) == (0, "2 dead letters found, 0 deleted")
    for usage in (unnamed, both):
        assert (usage.code, "write ids, or --task, or --all" in usage.err) == (2, True)
    assert (some.code, json.loads(some.out)) == (3, {"found": 1, "deleted": 1})
    assert "no dead letter under the id '1-1'" in some.err
    assert (all_.code, last(all_)) == (0, "2 dead letters found, 2 deleted")
    assert (nothing.code, last(nothing)) == (0, "0 dead letters found, 0 deleted")
    assert await app.control.dead.list() == []


class Terminal:
    """A purge of all letters that sits at a terminal and has asked."""

    def __init__(self, project, server_environ):
        self.ours, theirs = os.openpty()
        self.process = project.start("dlq", "purge", "--all", stdin=theirs, **server_environ)
        os.close(theirs)
        output = ""
        while not output.endswith("[y/N] "):
            char = self.process.stderr.read(1)
            assert char, output
            output += char
        assert output.splitlines()[-1] == "Delete 3 dead letters for good? [y/N] "

    def answer(self, text):
        os.write(self.ours, text)
        return self.end()

    def end(self):
        code = self.process.wait(30)
        os.close(self.ours)
        return code


async def test_purge_at_a_terminal_asks_and_deletes_only_after_a_yes(app, letters, project, server_environ):
    asked = [asyncio.to_thread(Terminal, project, server_environ) for _ in range(3)]
    unsure, stopped, sure = await asyncio.gather(*asked)
    assert await asyncio.to_thread(unsure.answer, b"\n") == 0
    stopped.process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(stopped.end) == 130
    assert len(await app.control.dead.list()) == 3
    assert await asyncio.to_thread(sure.answer, b"y\n") == 0
    assert await app.control.dead.list() == []
