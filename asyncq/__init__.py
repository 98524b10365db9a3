"""asyncq: an asyncio-native task runtime with awaitable result handles, on Redis streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq.app import AsyncQ
from asyncq.client.deadlock import allow_join_result, denied_join_result
from asyncq.context import Context, current
from asyncq.dependencies.depends import Depends
from asyncq.errors import (
    AsyncQError,
    BrokerNotConfigured,
    BrokerUnavailable,
    DecodeError,
    IncompleteStream,
    NotRegistered,
    NotReplicated,
    PayloadTooLarge,
    QueueFull,
    RemoteError,
    RemoteTraceback,
    ResultNotFound,
    ResultTimeout,
    RetryLater,
    SerializationError,
    SoftTimeLimitExceeded,
    SyncInAsyncContext,
    TaskExpired,
    TaskRevoked,
    TimeLimitExceeded,
    WorkerLost,
    WouldDeadlock,
)
from asyncq.execution.retry import Retry
from asyncq.middleware.job_event import JobEvent
from asyncq.middleware.middleware import Middleware
from asyncq.middleware.outgoing_call import Call
from asyncq.outcome import Outcome
from asyncq.results.eager import EagerResult
from asyncq.results.events import Event
from asyncq.results.gathering import as_completed, gather, wait
from asyncq.results.graph import DependencyGraph
from asyncq.results.groupresult import GroupResult, result_from_tuple
from asyncq.results.handle import AsyncResult
from asyncq.results.resultset import ResultSet
from asyncq.results.scope import Scope
from asyncq.results.streamresult import StreamResult
from asyncq.results.streams import Stream, SyncStream
from asyncq.schedules.cron import next_times
from asyncq.schedules.schedule import Schedule
from asyncq.states import EXCEPTION_STATES, PROPAGATE_STATES, READY_STATES, UNREADY_STATES, State, precedence
from asyncq.tasks.chain import Chain, chain
from asyncq.tasks.group import Group, chord, group
from asyncq.tasks.signature import Signature
from asyncq.tasks.task import Task
from asyncq.tasks.workflow import Workflow
from asyncq.worker import Worker

if TYPE_CHECKING:
    from asyncq.control.control import Control
    from asyncq.control.dead_letters import DeadLetter
    from asyncq.control.job_listing import JobInfo
    from asyncq.control.pages import Page
    from asyncq.control.queues import QueueInfo
    from asyncq.control.stats import Stats
    from asyncq.control.why import Reason, Why
    from asyncq.control.workers import WorkerInfo

__version__ = "0.1.0"

__all__ = [
    "EXCEPTION_STATES",
    "PROPAGATE_STATES",
    "READY_STATES",
    "UNREADY_STATES",
    "AsyncQ",
    "AsyncQError",
    "AsyncResult",
    "BrokerNotConfigured",
    "BrokerUnavailable",
    "Call",
    "Chain",
    "Context",
    "Control",
    "DeadLetter",
    "DecodeError",
    "DependencyGraph",
    "Depends",
    "EagerResult",
    "Event",
    "Group",
    "GroupResult",
    "IncompleteStream",
    "JobEvent",
    "JobInfo",
    "Middleware",
    "NotRegistered",
    "NotReplicated",
    "Outcome",
    "Page",
    "PayloadTooLarge",
    "QueueFull",
    "QueueInfo",
    "Reason",
    "RemoteError",
    "RemoteTraceback",
    "ResultNotFound",
    "ResultSet",
    "ResultTimeout",
    "Retry",
    "RetryLater",
    "Schedule",
    "Scope",
    "SerializationError",
    "Signature",
    "SoftTimeLimitExceeded",
    "State",
    "Stats",
    "Stream",
    "StreamResult",
    "SyncInAsyncContext",
    "SyncStream",
    "Task",
    "TaskExpired",
    "TaskRevoked",
    "TimeLimitExceeded",
    "Why",
    "Worker",
    "WorkerInfo",
    "WorkerLost",
    "Workflow",
    "WouldDeadlock",
    "allow_join_result",
    "as_completed",
    "chain",
    "chord",
    "current",
    "denied_join_result",
    "gather",
    "group",
    "next_times",
    "precedence",
    "result_from_tuple",
    "wait",
]

_OF_CONTROL = {
    "Control": "control",
    "DeadLetter": "dead_letters",
    "JobInfo": "job_listing",
    "Page": "pages",
    "QueueInfo": "queues",
    "Stats": "stats",
    "Reason": "why",
    "Why": "why",
    "WorkerInfo": "workers",
}
"""The names that are imported when they are first used, with their modules. A worker needs none of them, and
they would take 0.4 MB of its memory."""

if not TYPE_CHECKING:  # for a type checker, this would make every name a name of the package

    def __getattr__(name: str) -> object:
        if name not in _OF_CONTROL:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = getattr(import_module(f"asyncq.control.{_OF_CONTROL[name]}"), name)
        globals()[name] = found
        return found
