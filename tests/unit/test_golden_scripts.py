"""The scripts change on purpose alone, as the server gets them and without their comments.

A script is a step of the protocol. Before a changed one is committed, `python tests/model/run.py --full` and
`make chaos` must pass. Then `python tests/unit/test_golden_scripts.py` writes the file again.
"""

import hashlib
import re
from pathlib import Path

from asyncq.broker.transport import scripts

FILE = Path(__file__).parent / "golden" / "scripts.txt"

_COMMENT = re.compile(r"('(?:[^'\\\n]|\\.)*')|--.*")


def code_of(source: str) -> str:
    """Returns a script without its comments, empty lines and indents."""
    lines = (_COMMENT.sub(lambda found: found[1] or "", line).strip() for line in source.split("\n"))
    return "\n".join(line for line in lines if line)


def digests() -> dict[str, str]:
    """Returns what stands for the code of each script."""
    return {
        name: hashlib.sha256(code_of(script.source).encode()).hexdigest()[:16]
        for name, script in sorted(scripts.load().items())
    }


def test_the_code_of_a_script_is_what_stands_between_its_comments():
    assert code_of("-- why\n\nlocal a = '--' .. b -- how\n  return 'it\\'s' -- done") == (
        "local a = '--' .. b\nreturn 'it\\'s'"
    )


def test_no_script_has_changed_without_its_line_in_the_golden_file():
    stored = dict(line.split() for line in FILE.read_text(encoding="utf-8").splitlines())
    assert digests() == stored, (
        "a changed script goes through the model and the trials, see the top of this file"
    )


if __name__ == "__main__":
    FILE.write_text("".join(f"{name} {digest}\n" for name, digest in digests().items()), encoding="utf-8")
