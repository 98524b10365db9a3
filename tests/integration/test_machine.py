"""The scripts compared with an oracle: calls in any order, each sent twice, on a real server.

The oracle has a dozen fields for each job, and knows the answer of each call. After every step the whole
keyspace must agree with the oracle: no entry too many (nothing runs twice), none too few (nothing is lost),
no ended record changed, no key without an owner or a time to live. For a workflow, the oracle knows which
jobs wait, which became free and with which values, which ended because of another job, and that nothing is
left of it then.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from helpers import servers
from helpers.claiming import ClaimingConsumer
from helpers.examples import examples
from helpers.figures import report
from helpers.takeover import take
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from asyncq import wire
from asyncq.broker.schema.keys import GROUP, LAST_ATTEMPT, LEVEL, RETURNED
from asyncq.broker.schema.records import Record
from asyncq.states import TRANSITIONS, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncq import AsyncQ
    from asyncq.broker.broker import Broker

QUEUE = "default"
IDS = [f"job{number}" for number in range(12)]
REQUEST_IDS = ["once", "twice", "thrice~9999999999999"]
OUTCOME = wire.encode_ended(wire.Ended(wire.SUCCEEDED, b"\x01", 1, 2, 1, "w", "t", QUEUE, 0))
ELSEWHERE = "elsewhere"
RETURNS = LEVEL + RETURNED
FAR = 60_000
MOST_JOBS = 24
"""The largest number of jobs, because every step compares all of them with the server."""
MAX_CRASHES = 2
"""A small number, so that some jobs end because of it."""


@dataclass
class Hand:
    """One worker session. It may be taken for dead without knowing it."""

    consumer: ClaimingConsumer
    beats: int | None = 1
    """Its field in the hash of heartbeats; None once it has left or was taken for dead."""
    sent: int = 1
    was_taken: bool = False
    received: list[wire.Delivery] = field(default_factory=list)
    """All deliveries that it ever got, also those that it does not hold any more."""
    signals: dict[str, str] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)
    """The claims of the jobs for which it has noted that the body starts."""
    notes: dict[str, str] = field(default_factory=dict)
    """The entries up to which it has noted, by stream, that bodies have started."""

    def may_have_started(self, stream: str, entry: str) -> bool:
        """Returns whether its death counts for a job that it held, and with which no worker has died yet."""
        return stream not in self.notes or _order(entry) <= _order(self.notes[stream])

    @property
    def name(self) -> str:
        return self.consumer.name


@dataclass
class Book:
    """The knowledge of the oracle about one job."""

    id: str
    request_id: str
    letter: str
    wish: str
    """The record's third flag: `-`, `i` if the result is ignored, `f` if it was forgotten."""
    signal: str = "-"
    entry: str = "0"
    suffix: str = ""
    holder: Hand | None = None
    crashes: int = 0
    started: str = ""
    """The entry for which a worker noted that the body starts."""
    retries: int = 0
    is_due: bool = False
    ended_by: str = ""
    record: bytes = b""
    channels: set[str] = field(default_factory=set)
    parents: tuple[str, ...] = ()
    missing: int = 0
    """How many of the parents have not ended."""
    wait: int | None = None
    """For a job that waits for its parents: the delay after that in ms; None if it has none."""
    on_error: bool = False
    keeps: bool = False
    """Whether it gets the values of its parents."""
    values: list[str] = field(default_factory=list)
    """The jobs whose values its entry must carry."""
    children: dict[str, str] = field(default_factory=dict)
    """The jobs that wait for it, each with the server's note about it."""
    is_awaited: bool = False
    is_replaced: bool = False
    """Whether a workflow has replaced it. Then its body had started."""
    member: str = ""
    """The job because of which this one ended without having run."""
    states: list[State] = field(default_factory=lambda: [State.UNKNOWN])

    @property
    def is_live(self) -> bool:
        return self.letter in "LDRW"

    @property
    def call(self) -> str:
        """The part of the request id that identifies the call."""
        return self.request_id.partition("~")[0]

    @property
    def is_hidden(self) -> bool:
        return self.letter == wire.TOMBSTONE

    @property
    def flags(self) -> str:
        return f"{self.letter}{self.signal}{self.wish}{'d' if self.is_awaited else '-'}"

    @property
    def state(self) -> State:
        return State.STARTED if self.holder else wire.STATE_OF[self.letter]

    def is_held_as(self, hand: Hand, delivery: wire.Delivery) -> bool:
        return self.letter == wire.LIVE and self.holder is hand and self.entry == delivery.entry

    def may_be_ended_as(self, hand: Hand, delivery: wire.Delivery) -> bool:
        """Whether `finish` accepts the outcome. The record is enough for a call that has no signal, and that
        is the one in the record: no worker knows an entry that it was not given.
        """
        is_named = self.letter == wire.LIVE and self.entry == delivery.entry
        is_same_call = self.call == delivery.job.request_id.partition("~")[0]
        return is_named and (self.holder is hand or (is_same_call and self.signal == "-"))

    def was_ended_as(self, hand: Hand, delivery: wire.Delivery) -> bool:
        return not self.is_live and self.entry == delivery.entry and self.ended_by == hand.name

    def end(self, letter: str, by: str) -> None:
        self.states.append(wire.STATE_OF[letter])
        if self.signal != "-" and self.holder:
            self.holder.signals.pop(self.id, None)
        self.letter = letter if self.wish == "-" else wire.TOMBSTONE
        self.signal = self.wish = "-"
        self.holder, self.ended_by = None, by

    def move(self, letter: str) -> None:
        """Moves the job to a state in which no worker holds it."""
        if letter != wire.LIVE:
            self.entry = "0"
        self.holder = None
        self.letter = letter
        if self.state is not self.states[-1]:  # a wait for other jobs is PENDING, too
            self.states.append(self.state)


class Table:
    """The server, the event loop and the app of all examples. Each example starts with an empty namespace."""

    def __init__(self, app: AsyncQ, url: str) -> None:
        self.app = app
        self.raw = servers.client(url)
        self.runner = asyncio.Runner()
        self.run(self.app.__aenter__())
        self.broker = self.run(self._find_broker())
        self.steps = 0

    async def _find_broker(self) -> Broker:
        return self.app.sessions.current().broker

    def run(self, awaitable: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await awaitable

        return self.runner.run(wait())

    def picture(self) -> dict[str, Any]:
        """Returns the contents of all keys of the namespace."""
        tag = self.app.sessions.shards[0].tag
        # Clients note queues and ended jobs for listings half a second later, which is any time here.
        notes = (f"{tag}:qs", f"{tag}:hi:")
        keys = sorted(
            key for each in self.raw.keys(f"{tag}*") if not (key := each.decode()).startswith(notes)
        )
        pipe = self.raw.pipeline(transaction=False)
        asked = {key.removeprefix(tag + ":"): self._ask(pipe, key) for key in keys}
        answers = iter(pipe.execute())
        picture = {name: [next(answers) for _ in range(count)] for name, count in asked.items()}
        for name, found in picture.items():
            if name.startswith("q:"):  # without the times, which change by themselves
                found[1] = {item["message_id"].decode(): item["consumer"].decode() for item in found[1]}
        return picture

    def _ask(self, pipe: Any, key: str) -> int:
        """Asks for the whole content of one key, and returns the number of answers."""
        kind = key.removeprefix(self.app.sessions.shards[0].tag + ":").partition(":")[0]
        if kind == "r":
            pipe.get(key)
            pipe.expiretime(key)
        elif kind == "q":
            pipe.xrange(key)
            pipe.xpending_range(key, GROUP, "-", "+", 1000)
        else:
            asks = {
                "w": "hgetall",
                "x": "hgetall",
                "m": "hgetall",
                "dep": "hgetall",
                "bg": "hgetall",
                "dlq": "xlen",
                "u": "get",
                "lv": "smembers",
            }
            pipe.zrange(key, 0, -1, withscores=kind == "wb") if kind in {"d", "wb"} else getattr(
                pipe, asks[kind]
            )(key)
            return 1
        return 2

    def clear(self) -> None:
        keys = self.raw.keys(f"{self.app.sessions.shards[0].tag}*")
        if keys:
            self.raw.delete(*keys)

    def close(self) -> None:
        self.run(self.app.__aexit__(None, None, None))
        self.runner.close()
        self.raw.close()


def was_something_received(machine: Machine) -> bool:
    return any(hand.received for hand in machine.hands)


class Machine(RuleBasedStateMachine):
    """Makes the calls of clients and workers, in any order."""

    table: Table

    def __init__(self) -> None:
        super().__init__()
        self.books: dict[str, Book] = {}
        self.former: list[Book] = []
        """The forgotten jobs whose ids other calls have now."""
        self.dead_letters = 0
        self.latest: dict[str, Any] | None = (
            None  # the contents of all keys after the last step, if they were read already
        )
        self.broker = self.table.broker
        self.keys = self.broker.shards[0]
        self.streams = {suffix: self.keys.stream(QUEUE) + suffix for suffix in ("", RETURNS, LAST_ATTEMPT)}
        self.has_returned = False

    async def new_hand(self, number: int) -> Hand:
        consumer = ClaimingConsumer(self.broker.commands, f"w{number}", [QUEUE])
        await consumer.add_level(self.keys, f"{QUEUE}{RETURNS}".encode())
        return Hand(consumer)

    @initialize(ended=st.sampled_from(["", wire.SUCCEEDED, wire.FAILED]))
    def begin(self, ended: str) -> None:
        self.hands = [self.run(self.new_hand(n)) for n in range(3)]
        self.run(self.hands[0].consumer.make_groups())
        for hand in self.hands:
            assert self.run(self.beat_of(hand)) == []
        self.subscriber = self.table.raw.pubsub()
        self.subscriber.subscribe(self.broker.channel, ELSEWHERE)
        for _ in range(2):
            message = self.subscriber.get_message(timeout=2)
            assert message is not None
            assert message["type"] == "subscribe"
        # Jobs are claimed from the start, because most faults concern jobs that a worker holds.
        for id_ in IDS[:5]:
            self.enqueue(id_=id_, request_id=REQUEST_IDS[0], wait=None, ignored=False)
        for number in (0, 1, 1, 2):
            self.claim(number=number, count=1, choice=0, lost=False)
        self.end_by_hand(IDS[0], terminate=True)
        self.take_over(self.hands[0], self.hands[2])
        self.begin_anew()
        # A workflow that is half done: two parents, one of them held, an error callback, and a last job.
        self.begin_workflow(ended)
        # A job that crashed, failed and was claimed again, with both counts.
        self.claim(number=1, count=1, choice=-1, lost=False)
        self.delay_job(self.hands[1], self.hands[1].received[-1], wait=0)
        self.promote(number=0)
        self.claim(number=1, count=1, choice=-1, lost=False)

    def begin_workflow(self, ended: str) -> None:
        plans = [
            self.plan(f"part{number}", parents) for number, parents in enumerate(((), (), (0, 1), (0,), (2,)))
        ]
        plans[3].on_error = True
        jobs = self.written(plans, self.broker.channel)
        self.accept(plans)
        self.twice(lambda: self.accepted(jobs), True, True)
        self.claim(number=1, count=3, choice=0, lost=False)
        for delivery in self.hands[1].received[-2:-1] if ended else ():
            self.end_held(self.hands[1], [delivery], ended)

    def plan(self, id_: str, parents: tuple[int, ...]) -> Book:
        """Returns a job of a workflow that gets the values of its parents."""
        plan = Book(id_, f"call{id_}", wire.WAITING, "-", parents=tuple(f"part{index}" for index in parents))
        plan.missing, plan.keeps, plan.channels = len(parents), bool(parents), {self.broker.channel}
        return plan

    # -- how a call is tested ---------------------------------------------------------------------

    def run(self, awaitable: Awaitable[Any]) -> Any:
        return self.table.run(awaitable)

    def twice(self, verb: Callable[[], Awaitable[Any]], first: Any, second: Any) -> None:
        """Makes a call, which must give the first answer. A second time it must give the second, and change
        nothing.
        """
        self.table.steps += 1
        assert self.run(verb()) == first
        for book in self.books.values():
            if book.entry == "0":
                self.reread(book)
        before = self.latest = self.table.picture()
        assert self.run(verb()) == second, "sent again"
        assert self.table.picture() == before, "sent again, it changed something"

    def beat_of(self, hand: Hand) -> Awaitable[Any]:
        return hand.consumer.beat(self.keys, hand.sent)

    def book_of(self, delivery: wire.Delivery) -> Book:
        return self.books[delivery.job.id]

    def hand(self, number: int) -> Hand:
        return self.hands[number % len(self.hands)]

    def held_by(self, hand: Hand) -> list[Book]:
        return [book for book in self.books.values() if book.holder is hand]

    # -- clients ---------------------------------------------------------------------------------

    @rule(
        id_=st.sampled_from(IDS),
        request_id=st.sampled_from(REQUEST_IDS),
        wait=st.sampled_from([None, None, None, 0, FAR]),
        ignored=st.booleans(),
    )
    def enqueue(self, id_: str, request_id: str, wait: int | None, ignored: bool) -> None:
        channel = self.broker.channel
        job = wire.Job(
            id_, "task", QUEUE, b"\x92\x90\x80", request_id, channel, 0, FAR, ignore_result=ignored, wait=wait
        )
        book = self.books.get(id_)
        call = request_id.partition("~")[0]
        accepted = book is None or book.call == call or (id_, call) in self.former_calls
        if book is not None and book.is_hidden and not accepted:
            self.make_room(book)
            book, accepted = None, True
        if book is None:
            letter = wire.LIVE if wait is None else wire.SCHEDULED
            book = self.books[id_] = Book(id_, request_id, letter, "i" if ignored else "-", is_due=wait == 0)
            book.channels = set() if ignored else {channel}
            book.states.append(book.state)
        calls = [(job, wire.encode_job(job))]
        refused = [] if accepted else [(job, False)]
        self.twice(lambda: self.broker.intake.enqueue_many(calls), refused, refused)
        self.reread(book)

    @property
    def former_calls(self) -> set[tuple[str, str]]:
        return {(book.id, book.call) for book in self.former}

    def make_room(self, book: Book) -> None:
        """Notes that another call takes the id of a forgotten job. The server remembers the former call."""
        self.former.append(self.books.pop(book.id))

    def some_id(self, data: st.DataObject) -> str:
        """Draws the id of a job that has not ended, if there is one; now and then of any job."""
        live = [book.id for book in self.books.values() if book.is_live]
        return data.draw(st.sampled_from(live * 5 + [*self.books] + IDS[-1:]))

    @rule(data=st.data(), terminate=st.booleans())
    def revoke(self, data: st.DataObject, terminate: bool) -> None:
        self.end_by_hand(self.some_id(data), terminate=terminate)

    def end_by_hand(self, id_: str, *, terminate: bool) -> None:
        book, signal = self.books.get(id_), "t" if terminate else "c"
        above = book.parents if book and book.letter == wire.WAITING and book.is_replaced else ()
        first, second = self.revoked(book, signal)
        seen = {id_}
        while found := [one for one in dict.fromkeys(above) if one not in seen]:
            seen.update(found)
            above = ()
            for other in (self.books[one] for one in found):
                above += other.parents if other.letter == wire.WAITING else ()
                self.revoked(other, signal)
        self.twice(lambda: self.broker.revoke(id_, signal=signal, outcome=OUTCOME), first, second)

    def revoked(self, book: Book | None, signal: str) -> tuple[str, str]:
        """Revokes one job without its workflow. Returns the answers of the first and the second call."""
        answers = self.end_early(book, wire.REVOKED)
        if answers[0] == "signalled":
            assert book is not None
            assert book.holder is not None
            book.signal = signal if book.signal != "t" else "t"
            book.holder.signals[book.id] = book.signal
        return answers

    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        id_ = self.some_id(data)
        first, second = self.end_early(self.books.get(id_), wire.EXPIRED)
        self.twice(lambda: self.broker.expire(id_), first, second)

    def end_early(self, book: Book | None, letter: str) -> tuple[str, str]:
        """Ends a job from outside of a worker. Returns the answers of the first and the second call."""
        if book is None or book.is_hidden:
            return "unknown", "unknown"
        if not book.is_live:
            return "ended", "ended"
        if letter == wire.EXPIRED and book.request_id.endswith("~-"):
            return "running", "running"
        if book.holder is not None:
            answer = "running" if letter == wire.EXPIRED else "signalled"
            return answer, answer
        self.end(book, letter, "-")
        return "revoked", "unknown" if book.is_hidden else "ended"

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        id_ = self.some_id(data)
        book = self.books.get(id_)
        if book is None or book.is_hidden:
            answers = "unknown", "unknown"
        elif book.is_live:
            book.wish = "f"
            answers = "flagged", "flagged"
        else:
            book.letter = wire.TOMBSTONE
            answers = "forgotten", "unknown"
        self.twice(lambda: self.broker.forget(id_), *answers)

    @rule(channel=st.sampled_from(["", ELSEWHERE]))
    def fetch_status(self, channel: str) -> None:
        expected: list[Any] = []
        ids = [*IDS, *(id_ for id_ in self.books if id_ not in IDS)]
        for id_ in ids:
            book = self.books.get(id_)
            if book is None or book.is_hidden:
                expected.append(None)
            elif book.is_live:
                _, _, expires = book.request_id.partition("~")
                expected.append(f"{book.flags} {expires}" if expires.isdigit() else book.flags)
                if channel and book.wish != "i":
                    book.channels.add(channel)
            else:
                expected.append(book.letter)

        async def fetched() -> list[Any]:
            answers = await self.broker.fetch_status(ids, channel)
            return [answer.letter if isinstance(answer, wire.Ended) else answer for answer in answers]

        self.twice(fetched, expected, expected)

    # -- workflows -------------------------------------------------------------------------------

    @precondition(lambda self: len(self.books) < MOST_JOBS)
    @rule(data=st.data(), size=st.integers(1, 5), again=st.sampled_from([False, False, False, True]))
    def submit(self, data: st.DataObject, size: int, again: bool) -> None:
        """Submits a workflow of any form. In one of four, an id belongs to another job."""
        first = len(self.books)
        ids = [f"more{first + number}" for number in range(size)]
        if again and self.books:
            ids[-1] = data.draw(st.sampled_from([*self.books]))
        plans = [self.draw_plan(data, id_, ids[:number]) for number, id_ in enumerate(ids)]
        jobs = self.written(plans, self.broker.channel)

        taken = ids[-1] in self.books and not self.books[ids[-1]].is_hidden
        if not taken:
            self.accept(plans)
        self.twice(lambda: self.accepted(jobs), not taken, not taken)

    async def accepted(self, jobs: list[tuple[wire.Job, bytes]]) -> bool:
        try:
            await self.broker.intake.submit(jobs)
        except ValueError:
            return False
        return True

    def draw_plan(self, data: st.DataObject, id_: str, before: list[str]) -> Book:
        """Draws a job of a workflow. It is not accepted yet."""
        some = st.lists(st.sampled_from(before), unique=True, max_size=3) if before else st.just([])
        parents = tuple(data.draw(some))
        on_error = len(parents) == 1 and data.draw(st.sampled_from([False, False, True]))
        plan = Book(id_, f"call{self.table.steps}of-{id_}", wire.WAITING, data.draw(st.sampled_from("---i")))
        plan.parents, plan.missing, plan.on_error = parents, len(parents), on_error
        plan.keeps = bool(parents) and data.draw(st.booleans())
        plan.wait = data.draw(st.sampled_from([None, None, None, 0, FAR]))
        plan.channels = set() if plan.wish == "i" else {self.broker.channel}
        return plan

    def written(self, plans: list[Book], channel: str) -> list[tuple[wire.Job, bytes]]:
        jobs = []
        for plan in plans:
            job = wire.Job(plan.id, "task", QUEUE, b"\x92\x90\x80", plan.request_id, channel, 0, FAR)
            job.ignore_result, job.wait, job.on_error = plan.wish == "i", plan.wait, plan.on_error
            job.parents, job.value_template = (
                plan.parents,
                list(range(len(plan.parents))) if plan.keeps else None,
            )
            job.dependents = tuple(other.id for other in plans if plan.id in other.parents)
            jobs.append((job, wire.encode_job(job)))
        return jobs

    def accept(self, plans: list[Book]) -> None:
        for plan in plans:
            if plan.id in self.books:
                self.make_room(self.books[plan.id])
            self.books[plan.id] = plan
            for index, parent in enumerate(plan.parents):
                self.books[parent].children[plan.id] = f"{'e' if plan.on_error else index} {plan.request_id}"
                self.books[parent].is_awaited = True
            if plan.parents:
                plan.states.append(plan.state)
            else:
                self.release_job(plan)

    def release_job(self, book: Book) -> None:
        """Frees a job that waits for no other job any more: it goes into the queue, or waits for its own
        time.
        """
        book.is_due, book.entry = book.wait == 0, "0"
        book.move(wire.LIVE if book.wait is None else wire.SCHEDULED)

    def end(self, book: Book, letter: str, by: str) -> None:
        """Ends a job, and the jobs that wait for it or frees them; then the jobs that wait for these, and so
        on.
        """
        ended = [self.end_one(book, letter, by)]
        for one, how, calls in ended:
            children, one.children, one.is_awaited = one.children, {}, False
            for child in (self.books[id_] for id_ in children):
                if child.letter != wire.WAITING:
                    continue
                if child.on_error and not calls:
                    child.wish = "i"  # nobody waits for an error callback that is not called
                    ended.append(self.end_one(child, wire.REVOKED, "-"))
                elif child.on_error or how == wire.SUCCEEDED:
                    child.missing -= 1
                    if not child.missing:
                        child.values = list(child.parents) if child.keeps else []
                        self.release_job(child)
                else:
                    ended.append(self.end_one(child, how, "-", one.member or one.id))

    def end_one(self, book: Book, letter: str, by: str, member: str = "") -> tuple[Book, str, bool]:
        """Ends one job. Returns it, its letter, and whether this end calls its error callbacks."""
        book.end(letter, by)
        book.member = member
        return book, letter, letter in {wire.FAILED, wire.LOST} and (not member or book.is_replaced)

    @precondition(lambda self: was_something_received(self) and len(self.books) < MOST_JOBS)
    @rule(data=st.data(), size=st.integers(0, 2), again=st.sampled_from([False, False, False, True]))
    def replace(self, data: st.DataObject, size: int, again: bool) -> None:
        """Replaces a running job by a workflow, which ends with the job itself."""
        hand, delivery, book = self.some_delivery(data)
        first = len(self.books)
        ids = [f"more{first + number}" for number in range(size)]
        if again:
            ids.append(data.draw(st.sampled_from([*self.books])))
            again = not self.books[ids[-1]].is_hidden
        plans = [self.draw_plan(data, id_, ids[:number]) for number, id_ in enumerate(ids)]
        last = self.draw_plan(data, book.id, ids)
        last.on_error, last.request_id = False, delivery.job.request_id
        jobs = self.written([*plans, last], self.broker.channel)
        answer = 0
        if book.is_held_as(hand, delivery):
            answer = 2 if book.signal != "-" else -1 if again else 1
        if answer == 2:
            self.end(book, wire.REVOKED, hand.name)
        elif answer == 1:
            self.replace_job(book, plans, last)
        self.twice(
            lambda: hand.consumer.claims.replace(delivery, jobs), answer, answer if answer == -1 else 0
        )

    def replace_job(self, book: Book, plans: list[Book], last: Book) -> None:
        self.accept(plans)
        if "~" in book.request_id:  # it has started in time, so it does not expire any more
            book.request_id = book.request_id.partition("~")[0] + "~-"
        for index, parent in enumerate(last.parents):
            self.books[parent].children[book.id] = f"{index} {last.request_id}"
            self.books[parent].is_awaited = True
        book.parents, book.missing, book.keeps, book.wait = last.parents, last.missing, last.keeps, last.wait
        book.values, book.suffix, book.crashes, book.retries, book.on_error = [], "", 0, 0, False
        book.is_replaced = True
        if book.parents:
            book.move(wire.WAITING)
        else:
            self.release_job(book)

    def reread_all(self) -> None:
        for book in self.books.values():
            self.reread(book)

    # -- workers ---------------------------------------------------------------------------------

    numbers = st.integers(0, 5)

    def waiting(self, suffix: str) -> list[Book]:
        return [b for b in self.books.values() if b.letter == "L" and b.suffix == suffix and b.holder is None]

    @precondition(lambda self: any(self.waiting(suffix) for suffix in self.streams))
    @rule(
        number=numbers,
        count=st.integers(1, 3),
        choice=st.integers(0, 2),
        lost=st.sampled_from([False] * 3 + [True]),
    )
    def claim(self, number: int, count: int, choice: int, lost: bool) -> None:
        """Reads jobs. The reply may be lost on the way."""
        hand = self.hand(number)
        suffixes = [suffix for suffix in self.streams if self.waiting(suffix)]
        suffix = suffixes[choice % len(suffixes)]
        waiting = self.waiting(suffix)
        expected = sorted(waiting, key=lambda book: _order(book.entry))[:count]
        self.latest = None
        entries = self.run(hand.consumer.read([self.streams[suffix]], count, block=False))
        deliveries = [hand.consumer.delivery(entry) for entry in entries]
        assert [delivery.job.id for delivery in deliveries] == [book.id for book in expected]
        for book, delivery in zip(expected, deliveries, strict=True):
            assert (delivery.crashes, delivery.retries) == (book.crashes, book.retries)
            assert [id_ for id_, *_ in wire.split_notification(delivery.values)] == book.values
            book.holder = hand
            book.states.append(State.STARTED)
        if not lost:
            hand.received += deliveries

    @rule(number=numbers)
    def unknown_entries(self, number: int) -> None:
        """Asks for unknown pending entries: those of the worker that it never received."""
        hand = self.hand(number)
        known = {delivery.entry for delivery in hand.received}
        for suffix, stream in self.streams.items():
            missed = [b for b in self.held_by(hand) if b.suffix == suffix and b.entry not in known]
            entries = self.run(hand.consumer.unknown_entries(stream, known))
            deliveries = [hand.consumer.delivery(entry) for entry in entries]
            assert sorted(d.job.id for d in deliveries) == sorted(book.id for book in missed)
            hand.received += deliveries

    def some_delivery(self, data: st.DataObject) -> tuple[Hand, wire.Delivery, Book]:
        """Draws a held delivery with its holder, if there is one; one time in four any delivery with any
        worker.
        """
        given = [delivery for hand in self.hands for delivery in hand.received]
        every = [(hand, delivery) for hand in self.hands for delivery in given]
        held = [(hand, each) for hand, each in every if self.book_of(each).is_held_as(hand, each)]
        of_any = not held or data.draw(st.sampled_from([False, False, False, True]))
        awaited = [each for each in held if self.book_of(each[1]).children]
        hand, delivery = data.draw(st.sampled_from(every if of_any else held + awaited * 2))
        return hand, delivery, self.book_of(delivery)

    @precondition(was_something_received)
    @rule(data=st.data())
    def begin_again(self, data: st.DataObject) -> None:
        """Notes that a body starts. The worker may hold the job, or may have held it before."""
        hand, delivery, book = self.some_delivery(data)
        noted = hand.beats is not None
        self.twice(lambda: hand.consumer.begin(delivery, []), noted, noted)
        if noted:
            hand.started.add(delivery.claim)
            if book.is_held_as(hand, delivery):
                book.started = delivery.entry

    @precondition(was_something_received)
    @rule(data=st.data())
    def note_stream(self, data: st.DataObject) -> None:
        """Notes up to which entry of a stream bodies have started, or removes the note."""
        hand, delivery, _ = self.some_delivery(data)
        entry = data.draw(st.sampled_from([delivery.entry, "0-0", ""]))
        noted = hand.beats is not None
        self.twice(lambda: hand.consumer.note(self.keys, {delivery.stream: entry}), noted, noted)
        if noted:
            hand.notes.pop(delivery.stream, None)
            hand.notes |= {delivery.stream: entry} if entry else {}

    @precondition(was_something_received)
    @rule(data=st.data(), letter=st.sampled_from([wire.SUCCEEDED, wire.FAILED]))
    def finish(self, data: st.DataObject, letter: str) -> None:
        """Finishes a batch of jobs that the worker holds or held before."""
        hand, sure, _ = self.some_delivery(data)
        others = [each for each in hand.received if each.stream == sure.stream and each != sure]
        more = st.lists(st.sampled_from(others), max_size=3, unique_by=lambda each: each.entry)
        self.end_held(hand, [sure, *(data.draw(more) if others else [])], letter)

    def end_held(self, hand: Hand, batch: list[wire.Delivery], letter: str) -> None:
        first, second = [], []
        for delivery in batch:
            book = self.book_of(delivery)
            done_before = book.was_ended_as(hand, delivery)
            counts = book.may_be_ended_as(hand, delivery)
            if counts:
                self.end(book, letter, hand.name)
            first.append(1 if counts else 2 if done_before else 0)
            second.append(2 if counts or done_before else 0)
        outcomes = [(delivery, letter, OUTCOME) for delivery in batch]
        stream = batch[0].stream
        answer = len(first) if set(first) == {1} else first
        self.twice(lambda: hand.consumer.claims.finish_now(stream, outcomes), answer, second)

    @precondition(was_something_received)
    @rule(data=st.data(), wait=st.sampled_from([0, 0, FAR]))
    def retry(self, data: st.DataObject, wait: int) -> None:
        hand, delivery, _ = self.some_delivery(data)
        self.delay_job(hand, delivery, wait)

    def delay_job(self, hand: Hand, delivery: wire.Delivery, wait: int) -> None:
        book = self.book_of(delivery)
        first = 0
        if book.is_held_as(hand, delivery) and book.signal != "-":
            self.end(book, wire.REVOKED, hand.name)
            first = 2
        elif book.is_held_as(hand, delivery):
            book.move(wire.RETRYING)
            book.retries, book.is_due = delivery.retries + 1, wait == 0
            first = 1
        self.twice(
            lambda: hand.consumer.claims.retry(delivery, wait, delivery.retries + 1, b"failure"), first, 0
        )

    @precondition(was_something_received)
    @rule(data=st.data())
    def dead_letter(self, data: st.DataObject) -> None:
        hand, delivery, book = self.some_delivery(data)
        first = second = 2 if book.was_ended_as(hand, delivery) else 0
        if book.is_held_as(hand, delivery):
            self.end(book, wire.FAILED, hand.name)
            self.dead_letters += 1
            first, second = 1, 2
        self.twice(lambda: hand.consumer.claims.dead_letter(delivery, OUTCOME, "why"), first, second)

    @precondition(was_something_received)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        hand, delivery, book = self.some_delivery(data)
        first = 0
        if book.is_held_as(hand, delivery) and book.signal != "-":
            self.end(book, wire.REVOKED, hand.name)
            first = 2
        elif book.is_held_as(hand, delivery):
            book.move(wire.LIVE)
            self.give_back(book)
            first = 1
        jobs = [(delivery.entry, book.id)]
        self.twice(lambda: hand.consumer.claims.release(delivery.stream, jobs), [first], [0])
        self.reread(book)

    def give_back(self, book: Book) -> None:
        """Notes that a job goes into the returned queue; one of the last-attempt queue stays there."""
        if book.suffix != LAST_ATTEMPT:
            book.suffix, self.has_returned = RETURNS, True

    @precondition(lambda self: any(book.letter in "DR" for book in self.books.values()))
    @rule(number=numbers)
    def promote(self, number: int) -> None:
        for book in self.books.values():
            if book.letter in "DR" and book.is_due:
                book.move(wire.LIVE)
        far = any(book.letter in "DR" for book in self.books.values())

        async def more() -> bool:
            return await self.hand(number).consumer.promote(self.keys) is not None

        self.twice(more, far, far)
        self.reread_all()

    @rule(number=numbers)
    def beat(self, number: int) -> None:
        hand = self.hand(number)
        hand.sent += 1
        if hand.beats is not None:
            hand.beats = hand.sent
        answer = (
            None
            if hand.beats is None
            else sorted(part.encode() for signal in hand.signals.items() for part in signal)
        )

        async def signals() -> Any:
            found = await self.beat_of(hand)
            return None if found is None else sorted(found)

        self.twice(signals, answer, answer)

    @precondition(lambda self: any(self.held_by(hand) for hand in self.hands[1:]))
    @rule(data=st.data(), blind=st.sampled_from([False, False, True]))
    def take(self, data: st.DataObject, blind: bool) -> None:
        """Lets the first worker take another one for dead: rightly, or (`blind`) because of an
        old heartbeat.
        """
        me, dead = self.hands[0], data.draw(st.sampled_from([h for h in self.hands[1:] if self.held_by(h)]))
        if blind and dead.beats is not None:
            seen = str(dead.beats + 1)
            self.twice(
                lambda: take(me.consumer, self.streams[""], dead.name, seen), (0, 0, False), (0, 0, False)
            )
            return
        self.take_over(me, dead)

    def take_over(self, me: Hand, dead: Hand) -> None:
        seen_truly = None if dead.beats is None else str(dead.beats)
        dead.was_taken |= dead.beats is not None
        dead.beats = None
        for suffix, stream in self.streams.items():
            counts = self.taken(dead, me, suffix)
            seen_now = None if suffix else seen_truly
            self.twice(
                lambda s=stream, n=seen_now: take(me.consumer, s, dead.name, n),
                (*counts, False),
                (0, 0, False),
            )
            self.reread_all()

    def taken(self, dead: Hand, me: Hand, suffix: str) -> tuple[int, int]:
        """Notes the takeover of one stream. Returns how many jobs go back and how many end."""
        back = ended = 0
        for book in [book for book in self.held_by(dead) if book.suffix == suffix]:
            started = dead.may_have_started(self.streams[suffix], book.entry)
            counts = book.started == book.entry if book.crashes else started
            crashes = book.crashes + counts
            if book.signal != "-" or crashes >= MAX_CRASHES:
                letter = wire.REVOKED if book.signal != "-" else wire.LOST
                self.dead_letters += letter == wire.LOST
                self.end(book, letter, me.name)
                ended += 1
            else:
                book.crashes = crashes
                book.move(wire.LIVE)
                if not counts:
                    self.give_back(book)
                elif crashes >= MAX_CRASHES - 1:
                    book.suffix = LAST_ATTEMPT
                back += 1
        dead.signals.clear()
        return back, ended

    @rule(number=numbers)
    def unregister(self, number: int) -> None:
        hand = self.hand(number)
        goes = not self.held_by(hand)
        if goes:
            hand.beats = None
            hand.was_taken = False
            hand.started.clear()
            hand.notes.clear()
        self.twice(hand.consumer.unregister, goes, goes)

    @precondition(lambda self: len(self.hands) < 7 and any(hand.beats is None for hand in self.hands))
    @rule()
    def begin_anew(self) -> None:
        """Starts a new session for a worker that has left or was taken for dead. The old session may still
        make calls.
        """
        hand = self.run(self.new_hand(len(self.hands)))
        self.hands.append(hand)
        self.latest = None
        assert self.run(self.beat_of(hand)) == []

    # -- what must hold --------------------------------------------------------------------------

    def reread(self, book: Book) -> None:
        """Reads the entry id of a live job from its record, because the server chooses it."""
        if book.letter == wire.LIVE:
            record = self.table.raw.get(self.keys.records + book.id)
            assert record is not None
            book.entry = record.split(b" ")[1].decode()

    @precondition(lambda self: hasattr(self, "hands"))
    @invariant()
    def the_server_has_exactly_the_data_that_the_oracle_expects(self) -> None:
        picture = dict(self.latest or self.table.picture())
        for book in self.books.values():
            self.check_record(book, *picture.pop(f"r:{book.id}"))
        for suffix in self.streams:
            live = [book for book in self.books.values() if book.letter == "L" and book.suffix == suffix]
            entries, holders = picture.pop(f"q:{QUEUE}{suffix}")
            assert {e.decode(): f[b"i"].decode() for e, f in entries} == {
                book.entry: book.id for book in live
            }
            assert holders == {book.entry: book.holder.name for book in live if book.holder}
        delayed = {book.id for book in self.books.values() if book.letter in "DR"}
        waiting = {book.id: book for book in self.books.values() if book.letter == wire.WAITING}
        for id_, book in waiting.items():
            message = picture[f"m:{id_}"][0]
            assert (int(message[b"n"]), message[b"p"].decode().split()) == (book.missing, list(book.parents))
        for book in self.books.values():
            noted = picture.pop(f"dep:{book.id}", [{}])[0]
            assert {child.decode(): note.decode() for child, note in noted.items()} == book.children
        assert {id_.decode() for id_ in picture.pop("d", [[]])[0]} == delayed
        assert {name.removeprefix("m:") for name in picture if name.startswith("m:")} == {*delayed, *waiting}
        beats = {hand.name: str(hand.beats) for hand in self.hands if hand.beats is not None}
        found = picture.pop("w", [{}])[0]
        assert {name.decode(): count.decode() for name, count in found.items()} == beats
        beaten = {hand.name: 1.0 for hand in self.hands if hand.beats is not None}
        taken = {hand.name: -1.0 for hand in self.hands if hand.was_taken}
        found = picture.pop("wb", [[]])[0]
        assert {name.decode(): number for name, number in found} == {**beaten, **taken}
        for hand in self.hands:
            signals = picture.pop(f"x:{hand.name}", [{}])[0]
            assert {id_.decode(): signal.decode() for id_, signal in signals.items()} == hand.signals
            started = picture.pop(f"bg:{hand.name}", [{}])[0]
            assert {claim.decode() for claim in started} == hand.started | {*hand.notes}
        noted = {f"u:{id_}:{call}" for id_, call in self.former_calls}
        assert {name for name in picture if name.startswith("u:")} == noted
        for name in noted:
            del picture[name]
        assert picture.pop("dlq", [0])[0] == self.dead_letters
        assert picture.pop(f"lv:{QUEUE}", [set()])[0] == ({RETURNED.encode()} if self.has_returned else set())
        assert not [name for name in picture if not name.startswith("m:")]

    def check_record(self, book: Book, record: bytes, expires: int) -> None:
        assert record.startswith(book.flags.encode() + b" ")
        if book.is_live:
            assert expires == -1, "a live job's record has no time to live"
            return
        assert expires > 0, "an ended job's record expires"
        if book.member and not book.is_hidden:
            member = Record.parse(record).ended().member
            assert member is not None
            assert member[0] == book.member
        # An ended job can change only in one way: it can be forgotten.
        assert book.record in {b"", record} or book.is_hidden
        book.record = record

    @precondition(lambda self: self.books)
    @invariant()
    def states_are_reported_correctly_and_change_as_the_table_allows(self) -> None:
        async def all_states() -> list[Any]:
            return await asyncio.gather(*(self.broker.state(id_) for id_ in self.books))

        for book, answer in zip(self.books.values(), self.run(all_states()), strict=True):
            assert (answer is None) == book.is_hidden
            if answer is not None:
                assert answer.state is book.state
            for before, after in zip(book.states, book.states[1:], strict=False):
                assert after in TRANSITIONS[before]

    # -- the end ---------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "hands"):
            return
        try:
            if sys.exc_info()[0] is None:  # after a failure, only that failure is of interest
                self.drain()
                self.every_end_was_notified_once()
                self.nothing_is_left()
        finally:
            for hand in self.hands:
                hand.consumer.close()
            self.subscriber.close()
            self.table.clear()

    def drain(self) -> None:
        """Ends all jobs by the first worker. This must be possible from every state."""
        healer = self.hands[0]
        self.unknown_entries(0)
        for hand in self.hands[1:]:
            seen = None if hand.beats is None else str(hand.beats)
            for stream in self.streams.values():
                self.run(take(healer.consumer, stream, hand.name, seen))
                seen = None
        for id_, book in self.books.items():
            if book.letter in "DRW":
                self.run(self.broker.revoke(id_, signal="c", outcome=OUTCOME))
        mine = [d for d in healer.received if self.book_of(d).is_held_as(healer, d)]
        for stream in self.streams.values():
            entries = self.run(healer.consumer.read([stream], 100, block=False))
            mine += [healer.consumer.delivery(entry) for entry in entries]
        for delivery in mine:
            assert (
                self.run(healer.consumer.claims.finish_now(delivery.stream, [(delivery, "S", OUTCOME)])) == 1
            )
        assert self.run(healer.consumer.unregister())

    def every_end_was_notified_once(self) -> None:
        notified: list[tuple[str, str]] = []
        while (message := self.subscriber.get_message(timeout=0.005)) is not None:
            channel = message["channel"].decode()
            notified += [(channel, id_) for id_, _, _ in wire.split_notification(message["data"])]
        books = [*self.books.values(), *self.former]
        expected = [(channel, book.id) for book in books for channel in book.channels]
        assert sorted(notified) == sorted(expected)

    def nothing_is_left(self) -> None:
        picture = self.table.picture()
        for id_ in self.books:
            record, expires = picture.pop(f"r:{id_}")
            assert record[:1] in b"SFCEXT"
            assert expires > 0
        for suffix, stream in self.streams.items():
            assert picture.pop(f"q:{QUEUE}{suffix}") == [[], {}]
            assert self.table.raw.xinfo_consumers(stream, GROUP) == []
        picture.pop("dlq", None)  # dead letters are kept on purpose, within bounds
        picture.pop(f"lv:{QUEUE}", None)  # a queue keeps its levels
        for id_, call in self.former_calls:
            del picture[f"u:{id_}:{call}"]  # it is kept for a minute
        for hand in self.hands:
            picture.pop(f"bg:{hand.name}", None)  # after a takeover it is kept for a day
        # sessions that were taken for dead
        assert {number for _, number in picture.pop("wb", [[]])[0]} <= {-1.0}
        assert picture == {}


def _order(entry: str) -> tuple[int, int]:
    time, _, number = entry.partition("-")
    return int(time), int(number)


@pytest.mark.reads_bytes
@pytest.mark.one_server("listens by SUBSCRIBE")
def test_any_order_of_script_calls_keeps_all_guarantees(make_app, server_url):
    table = Table(make_app(max_crashes=MAX_CRASHES), server_url)
    try:
        run_state_machine_as_test(
            type("Machine", (Machine,), {"table": table}),
            settings=settings(
                max_examples=examples(25),
                stateful_step_count=40,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate, Phase.shrink),
            ),
        )
    finally:
        table.close()
    report(f"{table.steps:,} verbs, each sent twice")
