"""Settings of an app: each one is declared once, as a field of `Settings`, with default, parser and meaning.

A value comes from, in this order: an explicit argument of `AsyncQ(...)`, the environment (`ASYNCQ_<NAME>`),
the table `[tool.asyncq]` of the nearest pyproject.toml, the default below. The environment reader, the
command line's help and the table in the docs are all derived from the fields of `Settings`.

`AsyncQ(...)` calls `load` once, on whatever thread makes the app. A `Settings` object never changes. The
parsers here (`seconds`, `size`, `count`, ...) also check options of tasks and of calls.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import logging
import math
import operator
import os
import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncq.short_repr import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log: logging.Logger = logging.getLogger("asyncq")

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_CENTURY = 100 * 366 * 86400.0
_SIZE_UNITS = {"": 1, "b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3}


def shown(seconds: float | None) -> str:
    """Formats a time in seconds for people: exact if three digits suffice, else rounded to two digits, but
    never coarser than whole seconds. None is a time without end.

    >>> [shown(time) for time in (0.1, 0.0998716, 1.25, 12.345, 3723.4, 86400)]
    ['0.1 s', '0.1 s', '1.25 s', '12 s', '3,723 s', '86,400 s']
    """
    if seconds is None:
        return "for ever"
    if seconds != float(f"{seconds:.3g}"):
        seconds = round(seconds, max(0, 1 - math.floor(math.log10(abs(seconds)))))
    return f"{seconds:,.10g} s"


def seconds(value: float | str | timedelta, *, bounds: str = "from 0 to a century") -> float:
    """Returns a duration in seconds, from a number, a timedelta, or text such as `500ms`, `30s` or `1h30m`.

    Args:
        value: the duration.
        bounds: the range that the error names, for a caller that allows less.

    Raises:
        ValueError: not a duration, or negative.

    >>> seconds("1h30m")
    5400.0
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, str):
        text = value.strip().lower()
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
        try:
            if parts and "".join(number + unit for number, unit in parts) == text:
                value = sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
            else:
                value = float(text)
        except ValueError:
            raise ValueError(
                f"{brief(value)} is not a duration: write 30, 500ms, 30s, 5m, 1h30m or 2d"
            ) from None
    # Python takes True for a number, and `float` reads b"5": neither was meant as a time.
    try:
        number = math.nan if isinstance(value, (bool, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (0 <= number <= _CENTURY):
        raise ValueError(f"{brief(value)} is not a duration: it must be a number of seconds {bounds}")
    return number


def _some_seconds(value: float | str | timedelta) -> float:
    time = seconds(value, bounds="above 0, up to a century")
    if not time:
        raise ValueError(f"{brief(value)} leaves no time at all: write more than 0, such as 500ms or 10s")
    return time


def duration(option: str, value: float | str | timedelta) -> float:
    """Returns the duration of an option in seconds. The error names the option.

    Raises:
        ValueError: as `seconds`.
    """
    try:
        return seconds(value)
    except ValueError as error:
        raise ValueError(f"{option}={error}") from None


def size(value: int | str) -> int:
    """Returns a size in bytes, from a number or text such as `64kb` or `1mb`.

    Raises:
        ValueError: not a size.

    >>> size("64kb")
    65536
    """
    match = re.fullmatch(r"(\d+)\s*(b|kb|mb|gb)?", str(value).strip().lower())
    if match is None:
        raise ValueError(f"{brief(value)} is not a size: write 65536, 64kb or 1mb")
    return int(match[1]) * _SIZE_UNITS[match[2] or ""]


def _lease(value: float | str | timedelta) -> float:
    time = seconds(value, bounds="from 0.5 to a century")
    if time < 0.5:
        raise ValueError(
            f"{brief(value)} is too short: a worker sends three heartbeats in this time; use at least 0.5 s"
        )
    return time


def _some_bytes(value: int | str) -> int:
    number = size(value)
    if not number:
        raise ValueError(f"{brief(value)} leaves room for nothing: write more than 0, such as 64kb or 1mb")
    return number


def whole(value: Any) -> int:
    """Returns a whole number, from a number or a text of digits.

    Raises:
        ValueError: a fraction, no number, or a bool, which Python takes for a number.

    >>> whole("12"), whole(1e6)
    (12, 1000000)
    """
    if isinstance(value, (str, float)):
        with suppress(ValueError, OverflowError):
            number = int(value)
            if isinstance(value, str) or number == value:
                return number
    elif not isinstance(value, bool):
        with suppress(TypeError):
            return operator.index(value)
    raise ValueError(f"{brief(value)} is not a whole number")


def count(value: Any) -> int:
    """Returns a whole number of at least 1.

    Raises:
        ValueError: not a whole number, or less than 1.
    """
    number = whole(value)
    if number < 1:
        raise ValueError(f"{brief(value)} is too few: it must be at least 1")
    return number


def _shard_count_or_zero(value: Any) -> int:
    number = _count_or_zero(value)
    if number > MOST_SHARDS:
        raise ValueError(f"{brief(value)} is too many: at most {MOST_SHARDS}")
    return number


def _count_or_zero(value: Any) -> int:
    number = whole(value)
    if number < 0:
        raise ValueError(f"{brief(value)} is negative: it must be 0 or more")
    return number


def _url(value: Any) -> str:
    """Returns a URL without spaces around it and with its scheme in lower case, as other code compares it.

    Other errors in the URL of a server are reported when the app is opened.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{brief(value)} is not a URL: write redis://host:6379/0, or leave it out")
    scheme, separator, rest = value.strip().partition("://")
    scheme = scheme.lower()
    if separator and scheme == "memory" and rest:
        raise ValueError("nothing may follow memory://, which has no name and no options: write memory://")
    if separator and scheme == "embedded" and ("?" in rest or "#" in rest):
        raise ValueError(
            "embedded:// has no options: write embedded:// or embedded:///absolute/directory, "
            "with %3F and %23 for a ? and a # in the directory's name"
        )
    return scheme + separator + rest if separator else value.strip()


SHORTEST_SECRET = 16
"""The fewest bytes of a secret: what is shorter can be found by trying."""


class Secret(str):
    """A secret. Nothing that shows a value, such as `repr`, a format or a traceback with locals, shows it.

    >>> Secret("correct horse battery staple")
    <secret>
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Secret:  # noqa: D102  the class docstring describes construction
        # Of a secret, `str` would give what stands for it.
        return super().__new__(cls, str.__str__(text))

    def __repr__(self) -> str:
        return "<secret>"

    def __str__(self) -> str:
        return "<secret>"

    def __format__(self, _spec: str) -> str:
        return "<secret>"


def _secrets(value: Any) -> tuple[Secret, ...]:
    """Returns secrets, from a text with commas between them or from several texts or bytes. No error here
    shows any of them.
    """
    if isinstance(value, str):
        given: list[Any] = [one.strip() for one in str.split(value, ",")]
    elif isinstance(value, bytes):
        given = [value]
    else:
        try:
            given = list(value)
        except TypeError:
            raise ValueError(f"a {type(value).__name__} holds no secrets: give a list of texts") from None
        if not given and value != ():  # the default is no mistake
            raise ValueError("the list of secrets is empty: give one at least, or leave secrets= out")
    return tuple(_secret(number, one) for number, one in enumerate(given, 1))


def _secret(number: int, value: Any) -> Secret:
    if isinstance(value, bytes):
        # Bytes that are no UTF-8 become a text that stands for them: the secret must survive JSON, too.
        value = value.decode("utf-8", "backslashreplace")
    if not isinstance(value, str):
        raise ValueError(f"secret {number} is of type {type(value).__name__}: give a text or bytes")  # noqa: TRY004
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"secret {number} is no text that can be encoded") from None
    if length < SHORTEST_SECRET:
        raise ValueError(
            f"secret {number} has {length} bytes, and less than {SHORTEST_SECRET} can be guessed; make one "
            'by python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return Secret(value)


_YES, _NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


def _flag(value: bool | int | str) -> bool:
    text = str(value).strip().lower()
    if text not in _YES | _NO:
        raise ValueError(f"{brief(value)} is neither yes nor no: write 1 or 0")
    return text in _YES


MOST_SHARDS = 256
"""The largest number of shards. A worker beats, looks for due jobs and looks for dead workers in each of
them, so each shard costs every worker some commands."""

CLUSTER_SHARDS = 8
"""The number of shards on a Cluster, if nothing else is set."""
LONGEST_NAME = 100
"""The most characters of a name."""
NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{LONGEST_NAME}}}")
"""What a queue or a namespace may be called. Colons, spaces and braces would break the layout of keys and
records."""


def name(value: str) -> str:
    """Checks the name of a queue or a namespace, and returns it.

    Raises:
        ValueError: it is empty, longer than 100, or has a character other than `A-Z a-z 0-9 _ . -`.
    """
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError(f"{brief(value)} cannot be a name here: use 1 to 100 of A-Z a-z 0-9 _ . -")
    return value


def _option(default: Any, parse: Callable[[Any], Any], doc: str, *, is_shown: bool = True) -> Any:
    return field(default=default, repr=is_shown, metadata={"parse": parse, "doc": doc})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, with defaults. Durations are in seconds, sizes in bytes."""

    url: str = _option(
        "embedded://",
        _url,
        "Server: redis://, redis+sentinel://, redis+cluster://, with TLS rediss://, rediss+sentinel://, "
        "rediss+cluster://; unix://, valkey://, embedded://, memory://.",
        is_shown=False,  # it may hold a password
    )
    namespace: str = _option(
        "asyncq", name, "Prefix of every key and channel. Apps that share a server need different ones."
    )
    shards: int = _option(
        0,
        _shard_count_or_zero,
        "Number of shards of the namespace; 0: 8 on a Cluster, else 1. All apps and workers of a namespace "
        "need the same number.",
    )
    replicas: int = _option(
        0,
        _count_or_zero,
        "Replicas that must have a job before its enqueue returns; with fewer of them within "
        "`operation_timeout`, the enqueue raises NotReplicated. 0: an enqueue does not wait for replicas.",
    )
    default_queue: str = _option("default", name, "Queue of the tasks that do not name one.")
    result_ttl: float = _option(
        3600.0, seconds, "How long an outcome is kept after the job ended; never less than a minute."
    )
    lease: float = _option(
        15.0,
        _lease,
        "A worker without a heartbeat for this long is taken for dead, and its jobs run elsewhere.",
    )
    max_crashes: int = _option(3, count, "A job that has killed its worker this often is not tried again.")
    dead_ttl: float = _option(7 * 86400.0, seconds, "How long a dead letter is kept.")
    dead_cap: int = _option(10_000, count, "How many dead letters are kept.")
    history: int = _option(
        10_000,
        _count_or_zero,
        "How many ended jobs of each final state can be listed; 0: none. Of successes, up to 100 a second of "
        "each worker are kept.",
    )
    schedule_ttl: float = _option(
        86400.0,
        _some_seconds,
        "How long a schedule in code is kept that no live worker declares, and a schedule that was added by "
        "a call and has ended.",
    )
    max_length: int = _option(
        1_000_000,
        count,
        "Most jobs in one queue, and most delayed jobs in all. An enqueue beyond that raises QueueFull.",
    )
    full_wait: float = _option(
        0.0, seconds, "How long an enqueue waits for room in a full queue before it raises QueueFull."
    )
    max_payload: int = _option(
        1024 * 1024, _some_bytes, "Largest size of the encoded arguments of a call, or of a result."
    )
    concurrency: int = _option(100, count, "Jobs that one worker runs at the same time.")
    threads: int = _option(
        32, count, "Plain functions that one worker runs at the same time, each in a thread."
    )
    processes: int = _option(
        0,
        _count_or_zero,
        'Jobs of tasks with executor="process" that one worker runs at the same time, each in a process; '
        "0 means one for each core that the worker may use.",
    )
    last_tries: int = _option(
        4,
        count,
        "Jobs on their last try before max_crashes that one worker runs at the same time, each alone in a "
        "child process.",
    )
    max_parked: int = _option(
        1000,
        count,
        "Jobs of one worker that may wait for other jobs at the same time, beyond those that run.",
    )
    stall_warning: float = _option(
        10.0,
        seconds,
        "An event loop that is blocked for this long is logged with its stack, to within a second; 0: never.",
    )
    unknown_task_wait: float = _option(
        30.0,
        seconds,
        "How long a job whose task its worker does not know is deferred, so that a worker that knows the "
        "task can take it. After that it fails as NotRegistered; 0: it fails at once.",
    )
    grace: float = _option(
        25.0, seconds, "How long a stopping worker waits for running jobs to end before it hands them back."
    )
    operation_timeout: float = _option(
        10.0, _some_seconds, "How long a client's call keeps trying to reach the server."
    )
    stream_window: int = _option(
        1000, count, "How many items a generator may be ahead of its furthest reader, if it has readers."
    )
    stream_limit: int = _option(
        100_000, count, "Items that one generator may yield; its job fails if it yields more."
    )
    stream_idle: float = _option(
        0.0, seconds, "A generator that nobody has read for this long is ended as REVOKED; 0: never."
    )
    result_extended: bool = _option(
        False, _flag, "Keep the arguments of each call with its outcome, for handles made from an id."
    )
    trust_models: bool = _option(
        True,
        _flag,
        "Take the state of a received model or dataclass without its validators, if its fields are the same "
        "on both sides; the types of the fields are still checked. No: always validate.",
    )
    secrets: tuple[Secret, ...] = _option(
        (),
        _secrets,
        "Secrets of at least 16 bytes, with commas between them in the environment. Messages, outcomes, "
        "reports and stream items are signed with the first, and accepted with any; what is not signed is "
        "refused.",
        is_shown=False,
    )
    encrypt: bool = _option(
        False, _flag, "Also encrypt what `secrets` signs. It needs the extra `crypto`, in all processes."
    )
    max_age: float = _option(
        0.0,
        seconds,
        "With `secrets`: a worker refuses a job that was enqueued, or due, longer ago than this; 0: never.",
    )
    strict: bool = _option(
        False,
        _flag,
        "Refuse a server that may evict or forget jobs, and a password in plain text; else only warn.",
    )

    @property
    def shard_count(self) -> int:
        """The number of shards of the namespace."""
        return self.shards or (CLUSTER_SHARDS if "+cluster://" in self.url else 1)


def load(
    explicit: Mapping[str, Any], *, project_root: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Makes the settings of one app. Each option comes from the first source that has it.

    Args:
        explicit: the arguments given in code; None means "not given".
        project_root: the folder from which pyproject.toml is looked for, upward (default: the working
            directory).
        environ: the environment.

    Raises:
        ValueError: an unknown option, or a value that does not fit; the message names the option, its source
            and what would fit.
    """
    values: dict[str, Any] = {}
    for option, (source, raw) in _given(explicit, project_root, environ).items():
        try:
            values[option.name] = option.metadata["parse"](raw)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{source}: {error}") from error
    settings = _checked(Settings(**values))
    _check_variables(environ, strict=settings.strict)
    return settings


def sources(
    explicit: Mapping[str, Any], *, project_root: Path | None = None, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Returns where the value of each option comes from that is not the default, for people. Arguments and
    errors as of `load`.
    """
    return {option.name: source for option, (source, _) in _given(explicit, project_root, environ).items()}


def _given(
    explicit: Mapping[str, Any], project_root: Path | None, environ: Mapping[str, str]
) -> dict[dataclasses.Field[Any], tuple[str, Any]]:
    """Returns the first source that has an option, and what it has; nothing for an option that none has."""
    known = {option.name: option for option in fields(Settings)}
    table = _pyproject_table(project_root or Path.cwd())
    for source, names in (("AsyncQ(...)", explicit), ("[tool.asyncq]", table)):
        for given in names:
            if given not in known and not (source == "[tool.asyncq]" and given == "app"):
                raise ValueError(_unknown(source, given, list(known)))
    found: dict[dataclasses.Field[Any], tuple[str, Any]] = {}
    for option in known.values():
        variable = f"ASYNCQ_{option.name.upper()}"
        if explicit.get(option.name) is not None:
            found[option] = f"AsyncQ({option.name}=...)", explicit[option.name]
        elif environ.get(variable):
            found[option] = variable, environ[variable]
        elif option.name in table:
            found[option] = f"[tool.asyncq] {option.name}", table[option.name]
    return found


def misspelled_variables(environ: Mapping[str, str] = os.environ) -> list[tuple[str, str]]:
    """Returns the variables that look like settings and are none, each with what may be meant."""
    known = OTHER_VARIABLES.union(option.name.upper() for option in fields(Settings))
    found = []
    for variable in sorted(environ):
        prefix, _, rest = variable.partition("_")
        if (
            prefix != "ASYNCQ"
            or rest in known
            or not environ[variable]
            or _is_injected(rest, environ[variable])
        ):
            continue
        near = _near_variable(rest.upper(), sorted(known))
        found.append((variable, f"did you mean ASYNCQ_{near}?" if near else "see the list of settings"))
    return found


def replace(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """Returns settings with some options changed. A value may also be a text, as in the environment.

    Raises:
        ValueError: an unknown option or a value that does not fit.
    """
    known = {option.name: option for option in fields(Settings)}
    values = {}
    for name_, raw in given.items():
        if name_ not in known:
            raise ValueError(_unknown("reconfigure(...)", name_, list(known)))
        try:
            values[name_] = known[name_].metadata["parse"](raw)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name_}: {error}") from error
    if values.get("strict"):
        _check_variables(os.environ, strict=True)
    return _checked(dataclasses.replace(settings, **values))


def _checked(settings: Settings) -> Settings:
    """Returns settings whose values fit each other.

    Raises:
        ValueError: they do not.
    """
    for option in ("encrypt", "max_age"):
        if getattr(settings, option) and not settings.secrets:
            raise ValueError(f"{option}= needs secrets=: without them nothing is signed; set ASYNCQ_SECRETS")
    return settings


OTHER_VARIABLES: frozenset[str] = frozenset({"APP", "EMBEDDED", "ENV", "FAILPOINTS"})
"""Environment variables that asyncq reads and that are no settings, without the prefix `ASYNCQ_`."""

# Variables that an orchestrator sets in every container for a service whose name begins with asyncq.
# Kubernetes: service links. Docker: links, and the other container's environment, with ENV in front.
_INJECTED = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?|ENV_\w+)"
)
_warned_of: set[str] = set()
"""Variables of which this process warns no more."""


def warn_of_no_variable(environ: Mapping[str, str] = os.environ) -> None:
    """Suppresses this process's warnings of the variables that are set now: its parent process has warned."""
    _warned_of.update(environ)


def _check_variables(environ: Mapping[str, str], *, strict: bool) -> None:
    """Warns of variables that look like settings and are none, once per process; with `strict`, refuses them.

    Raises:
        ValueError: with `strict`; it names the variable and the nearest setting.
    """
    for variable, hint in misspelled_variables(environ):
        message = f"the environment variable {variable} is not a setting and changes nothing; {hint}"
        if strict:
            raise ValueError(message)
        if variable not in _warned_of:
            _warned_of.add(variable)
            log.warning("%s", message)


def _near_variable(rest: str, known: list[str]) -> str:
    whole_words = [name_ for name_ in known if f"_{rest}".endswith(f"_{name_}") or name_.endswith(f"_{rest}")]
    near = whole_words or difflib.get_close_matches(rest, known, n=1, cutoff=0.5)
    return near[0] if near else ""


def _is_injected(rest: str, value: str) -> bool:
    # Docker's links also set a variable that ends with NAME. Its value is a path such as /web/asyncq.
    return _INJECTED.fullmatch(rest) is not None or (rest.endswith("NAME") and value.startswith("/"))


def describe() -> list[tuple[str, str, str, str]]:
    """Returns every option as (name, environment variable, default, meaning), for the docs and the help."""
    return [
        (option.name, f"ASYNCQ_{option.name.upper()}", str(option.default), option.metadata["doc"])
        for option in dataclasses.fields(Settings)
    ]


def _unknown(source: str, given: str, known: list[str]) -> str:
    near = difflib.get_close_matches(given, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(known)}"
    return f"{source}: unknown option {given!r}; {hint}"


def _pyproject_table(folder: Path) -> dict[str, Any]:
    for parent in (folder, *folder.parents):
        file = parent / "pyproject.toml"
        try:
            state = file.stat()
        except OSError:
            continue
        return _table_in(file, state.st_mtime_ns, state.st_size)
    return {}


@functools.lru_cache(maxsize=16)
def _table_in(file: Path, _changed: int, _size: int) -> dict[str, Any]:
    """Reads the table of a file once per change of the file: parsing takes up to 10 ms, for each app."""
    with file.open("rb") as stream:
        table: dict[str, Any] = tomllib.load(stream).get("tool", {}).get("asyncq", {})
    return table
