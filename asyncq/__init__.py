"""asyncq: an asyncio-native task runtime with awaitable result handles, on Redis streams."""

from __future__ import annotations

from asyncq.app import AsyncQ
from asyncq.context import Context, allow_join_result, current, denied_join_result
from asyncq.control import DeadLetter
from asyncq.eager import EagerResult
from asyncq.errors import (
    AsyncQError,
    BrokerNotConfigured,
    BrokerUnavailable,
    DecodeError,
    IncompleteStream,
    NotRegistered,
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
from asyncq.events import Event
from asyncq.gathering import as_completed, gather, wait
from asyncq.graph import DependencyGraph
from asyncq.groupresult import GroupResult, result_from_tuple
from asyncq.outcomes import Outcome
from asyncq.results import AsyncResult
from asyncq.resultset import ResultSet
from asyncq.retry import Retry
from asyncq.scope import Scope
from asyncq.states import EXCEPTION_STATES, PROPAGATE_STATES, READY_STATES, UNREADY_STATES, State, precedence
from asyncq.streamresult import StreamResult
from asyncq.streams import Stream, SyncStream
from asyncq.tasks import Task
from asyncq.worker import Worker
from asyncq.workflows import Chain, Group, Signature, Workflow, chain, chord, group

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
    "Chain",
    "Context",
    "DeadLetter",
    "DecodeError",
    "DependencyGraph",
    "EagerResult",
    "Event",
    "Group",
    "GroupResult",
    "IncompleteStream",
    "NotRegistered",
    "Outcome",
    "PayloadTooLarge",
    "QueueFull",
    "RemoteError",
    "RemoteTraceback",
    "ResultNotFound",
    "ResultSet",
    "ResultTimeout",
    "Retry",
    "RetryLater",
    "Scope",
    "SerializationError",
    "Signature",
    "SoftTimeLimitExceeded",
    "State",
    "Stream",
    "StreamResult",
    "SyncInAsyncContext",
    "SyncStream",
    "Task",
    "TaskExpired",
    "TaskRevoked",
    "TimeLimitExceeded",
    "Worker",
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
    "precedence",
    "result_from_tuple",
    "wait",
]
