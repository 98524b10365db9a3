"""The virtual environments of the systems: each peer has its own, with the versions of its requirements file.

`requirements/<peer>.txt` pins what a peer needs, and `requirements/harness.txt` holds what the harness itself
needs there. They lie in `.venv-bench`, and are made again when one of the files, the Python or the folder has
changed. A file may begin with `# python: 3.12` if the peer does not run on the Python of the harness.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / ".venv-bench"
REQUIREMENTS = HERE / "requirements"
OWN = {"raw", "asyncq", "current", "baseline"}
"""The systems that run in the environment of the harness."""


class Missing(Exception):
    """A system cannot run here, and why."""


@dataclass(frozen=True)
class Environment:
    """Where a system runs.

    Args:
        python: its interpreter.
        note: what is unusual about it, for the results.
    """

    python: str
    note: str = ""


def environment(system: str, python: str = "") -> Environment:
    """Returns the environment of a system, and makes it first if need be.

    Args:
        system: the adapter's name. What follows an underscore is another setting of the same peer.
        python: `3.12`, if it is not to be the harness's own.

    Raises:
        Missing: there is no such Python, or pip refused.
    """
    if system in OWN:
        if not python:
            return Environment(sys.executable)
        return _made(f"asyncq-{python}", _find_python(python), ["--editable", f"{HERE.parent}[uvloop]"])
    peer = system.partition("_")[0]
    file = REQUIREMENTS / f"{peer}.txt"
    asked = re.match(r"# python: (\S+)", file.read_text())
    needed = asked[1] if asked else ""
    base = _find_python(needed) if needed else _base()
    note = f"Python {needed}, because it does not install on older ones" if needed else ""
    made = _made(peer, base, ["-r", str(REQUIREMENTS / "harness.txt"), "-r", str(file)])
    return Environment(made.python, note)


def _made(name: str, base: str, wanted: list[str]) -> Environment:
    folder = FOLDER / name
    python = folder / "bin" / "python"
    stamp = folder / ".made"
    files = [REQUIREMENTS / "harness.txt", REQUIREMENTS / f"{name}.txt"]
    texts = [path.read_text() for path in files if path.exists()]
    mark = hashlib.sha256("\n".join([base, str(folder), *wanted, *texts]).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == mark:
        return Environment(str(python))
    print(f"--> making {folder.relative_to(HERE.parent)}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run([base, "-m", "venv", str(folder)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted])
    stamp.write_text(mark)
    return Environment(str(python))


def _run(argv: list[str]) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        raise Missing("not installable: the installation took more than ten minutes") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        reason = lines[-1].removeprefix("ERROR: ")[:200]
        raise Missing(f"not installable: {reason}")


def _base() -> str:
    return str(Path(getattr(sys, "_base_executable", "") or sys.executable))


def _find_python(version: str) -> str:
    for candidate in _candidates(version):
        done = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        if done.stdout.strip() == version:
            return candidate
    raise Missing(f"not installable: needs Python {version}, which is not on this machine")


def _candidates(version: str) -> Iterator[str]:
    if found := shutil.which(f"python{version}"):
        yield found
    for path in sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python")):
        yield str(path)
