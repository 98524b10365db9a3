"""What `django.tasks` has, as far as asyncq needs it. No other module asks which version of Django is here.

With Django 5 there is no `django.tasks`. Then `IS_THERE` is false, and everything else here must not be used.
"""

# With Django 5, pyright does not find these modules.
# pyright: reportMissingImports=false, reportMissingModuleSource=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from django.tasks import base, exceptions, signals as found_signals, task_backends as found_backends
    from django.tasks.backends.base import BaseTaskBackend as FoundBackend
    from django.utils.json import normalize_json as found_normalize_json
except ModuleNotFoundError as _error:
    if _error.name not in {"django.tasks", "django.utils.json"}:
        raise
    base = exceptions = found_signals = found_backends = found_normalize_json = None
    FoundBackend = object

IS_THERE: bool = base is not None

# Django has no types.
if TYPE_CHECKING:

    class BaseTaskBackend:
        """The base class of backends."""

        def __init__(self, alias: str, params: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

        def validate_task(self, task: Any) -> None:
            """Raises if the backend cannot run a task."""

else:
    BaseTaskBackend = FoundBackend
InvalidTask: Any = getattr(exceptions, "InvalidTask", None)
Task: Any = getattr(base, "Task", None)
TaskContext: Any = getattr(base, "TaskContext", None)
TaskError: Any = getattr(base, "TaskError", None)
TaskResult: Any = getattr(base, "TaskResult", None)
TaskResultDoesNotExist: Any = getattr(exceptions, "TaskResultDoesNotExist", None)
TaskResultStatus: Any = getattr(base, "TaskResultStatus", None)
normalize_json: Any = found_normalize_json
signals: Any = found_signals
task_backends: Any = found_backends
