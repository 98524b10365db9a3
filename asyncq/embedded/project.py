"""Which project directory an `embedded://` URL means, and where an embedded server is refused.

A session calls `resolve` before it joins a server, and `refuse_or_warn` when it knows the server's version.
Neither function touches a server.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from asyncq.errors import BrokerNotConfigured

if TYPE_CHECKING:
    from collections.abc import Mapping


def resolve(url: str, *, project_file: str | None) -> Path:
    """Returns the project directory whose server an `embedded://` URL means.

    Worker and web process must find the same server even if they are started in different directories. So the
    file that made the app counts, and not the working directory.

    Args:
        url: `embedded://` for the project of `project_file`, or `embedded:///abs/dir` for that directory.
        project_file: the file that made the app. Without one that exists (REPL, notebook) the search begins
            in the working directory.

    Returns:
        The nearest directory, upwards from the file's, with a `pyproject.toml` or a `.git`; if there is none,
        the directory where the search began. The server keeps its data in `.asyncq/` there.

    Raises:
        BrokerNotConfigured: the URL is of another kind, or its path is not absolute.

    Example:
        >>> resolve("embedded:///srv/shop", project_file=None)
        PosixPath('/srv/shop')
    """
    parts = urlsplit(url)
    if parts.scheme != "embedded" or parts.netloc:
        raise BrokerNotConfigured(
            f"Not a URL of the embedded server: {url!r}. Write embedded:// or embedded:///absolute/directory."
        )
    if parts.path.strip("/"):
        named = Path(unquote(parts.path)).resolve()
        return named.parent if named.name == ".asyncq" else named
    start = Path.cwd()
    if project_file is not None and Path(project_file).is_file():
        start = Path(project_file).resolve().parent
    for directory in (start, *start.parents):
        if (directory / "pyproject.toml").exists() or (directory / ".git").exists():
            return directory
    return start


_PRODUCTION = ("KUBERNETES_SERVICE_HOST", "K_SERVICE", "ECS_CONTAINER_METADATA_URI_V4", "DYNO")


def refuse_or_warn(environ: Mapping[str, str], directory: Path, version: str | None = None) -> str | None:
    """Refuses the embedded server in production, or returns a warning for the user.

    On Kubernetes, Cloud Run, ECS and Heroku the worker and the web process have different file systems, and
    each would silently get an empty server of its own. `ASYNCQ_EMBEDDED` decides: `auto` (the default),
    `always` (no check, no warning) or `never`.

    Args:
        environ: the environment, as `os.environ`.
        directory: the project directory, from `resolve`.
        version: the server's version, from `EmbeddedServer.version`; None before a server is started.

    Returns:
        The text of a warning, for the caller to log once per process (logger "asyncq"); None for `always`.

    Raises:
        BrokerNotConfigured: the embedded server must not be used here. The command line ends with status 78.

    Example:
        >>> from pathlib import Path
        >>> refuse_or_warn({"ASYNCQ_EMBEDDED": "always"}, Path("/srv/shop"))
    """
    mode = environ.get("ASYNCQ_EMBEDDED", "").strip().lower() or "auto"
    if mode not in {"auto", "always", "never"}:
        raise BrokerNotConfigured(f"ASYNCQ_EMBEDDED={mode!r} is not known. Write auto, always or never.")
    if mode == "always":
        return None
    if mode == "never":
        raise BrokerNotConfigured(
            "No ASYNCQ_URL, and ASYNCQ_EMBEDDED=never.\nSet ASYNCQ_URL=redis://host:6379/0."
        )
    signs = [f"{name} is set" for name in _PRODUCTION if environ.get(name)]
    if environ.get("ASYNCQ_ENV", "").strip().lower() == "production":
        signs.insert(0, "ASYNCQ_ENV=production")
    if signs:
        raise BrokerNotConfigured(
            f"No ASYNCQ_URL, and the embedded server is refused here ({signs[0]}): "
            "each machine or container would get an empty server of its own.\n"
            "Set ASYNCQ_URL=redis://host:6379/0, or ASYNCQ_EMBEDDED=always if there is only one machine."
        )
    return (
        f"no ASYNCQ_URL, using the embedded {version or 'server'} at {directory / '.asyncq'} "
        "(unix socket, this machine only).\n"
        "         Fine for development. For production: ASYNCQ_URL=redis://host:6379/0   "
        "Silence: ASYNCQ_EMBEDDED=always"
    )
