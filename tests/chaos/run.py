"""Runs the trials and prints their figures: `python tests/chaos/run.py --full`, or `make chaos`.

--only NAME   one trial (may be given again); see --list
--scale 0.1   a tenth of the jobs and of the faults
--seed N      other random faults
--lease S     of the workers (5 s)
--write       store the table in RESULTS.md beside this file
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import logging
import os
import platform
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # this folder is the package `chaos`

from chaos.report import Report  # noqa: E402  the path must be set first
from chaos.trials import TRIALS  # noqa: E402  as above

HEAD = "| trial | figure | value | limit | |\n|---|---|---|---|---|"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="all trials at full scale (minutes)")
    parser.add_argument("--only", action="append", choices=list(TRIALS), metavar="NAME")
    parser.add_argument("--scale", type=float, default=None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lease", type=float, default=5.0)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--list", action="store_true", help="name the trials")
    return parser.parse_args()


async def run(name: str, scale: float, seed: int, lease: float) -> Report:
    """Runs one trial. A trial that raises has failed, and the other trials still run."""
    began = time.monotonic()
    try:
        report = await TRIALS[name](scale, seed, lease)
    except Exception as error:
        traceback.print_exc()
        report = Report(name)
        report.equal("error", f"{type(error).__name__}: {error}".splitlines()[0][:200], "nothing")
    report.fact("duration, s", round(time.monotonic() - began, 1))
    return report


def store(reports: list[Report], scale: float, lease: float) -> None:
    system = f"{platform.system()} {platform.machine()}"
    machine = f"{os.cpu_count()} cores, {system}, Python {platform.python_version()}"
    text = f"""# Chaos: results

`python {" ".join(["tests/chaos/run.py", *sys.argv[1:]])}` on {dt.datetime.now(dt.UTC).date()};
{machine}; lease {lease:g} s, scale {scale:g}.

{HEAD}
{chr(10).join(report.rows() for report in reports)}
"""
    (HERE / "RESULTS.md").write_text(text)


def main() -> int:
    given = arguments()
    if given.list:
        for name, trial in TRIALS.items():
            print(f"{name:20} {(trial.__doc__ or '').splitlines()[0]}")  # noqa: T201  a command's answer
        return 0
    logging.basicConfig(level=logging.ERROR)
    scale = given.scale or (1.0 if given.full else 0.02)
    print(HEAD, flush=True)  # noqa: T201  as above
    reports = []
    for name in given.only or TRIALS:
        reports.append(asyncio.run(run(name, scale, given.seed, given.lease)))
        print(reports[-1].rows(), flush=True)  # noqa: T201  as above
    if given.write:
        store(reports, scale, given.lease)
    return 0 if all(report.good for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
