"""The project directory that an `embedded://` URL means."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from asyncq.errors import BrokerNotConfigured


def resolve(url: str, *, project_file: str | None) -> Path:
    """Name the project directory whose server an `embedded://` URL means.

    Worker and web process must meet even when they are started in different directories, so it is the file
    that made the app that counts, not the working directory.

    Args:
        url: `embedded://` for the project of `project_file`, or `embedded:///abs/dir` for the directory
            named.
        project_file: the file that made the app. Without one that exists (REPL, notebook) the working
            directory is taken.

    Returns:
        The nearest directory, from there upwards, with a `pyproject.toml` or a `.git`; if there is none,
        where the search began. The server's data goes to `.asyncq/` in it.

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
