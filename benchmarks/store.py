"""The file of the results. Each finished cell is stored at once, so a run that was interrupted goes on."""

import json
from pathlib import Path
from typing import Any

SCHEMA = 2
SAME = ("grid", "commit", "cpu", "cores", "python", "server")
"""What must be the same if a run goes on."""

Runs = list[dict[str, Any]]


class Store:
    """The cells of one run.

    Args:
        path: the JSON file.
        about: machine, versions and command.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path = path
        self.about: dict[str, Any] = {**about, "complete": False}
        self.systems: dict[str, dict[str, Any]] = {}
        self.figures: list[dict[str, Any]] = []
        self.runs: Runs = []

    @classmethod
    def open(
        cls, folder: Path, name: str, about: dict[str, Any], *, fresh: bool = False, again: bool = False
    ) -> "Store":
        """Returns the newest run of this name if it is unfinished, and of the same code and machine.
        Otherwise returns a new one.

        Args:
            folder: where the files are.
            name: the end of the file's name.
            about: machine, versions and command of this run.
            fresh: start anew in any case.
            again: go on with a finished run, too, and forget its failed cells.
        """
        if not fresh:
            for path in sorted(folder.glob(f"????-??-??-{name}.json"), reverse=True):
                tree = json.loads(path.read_text())
                old = tree["about"]
                if old.get("complete", True) and not (again and "complete" in old):
                    break
                if different := [key for key in SAME if old.get(key) != about.get(key)]:
                    print(f"{path.name} is unfinished, but of another {', '.join(different)}: starting anew")
                    break
                store = cls(path, {**about, "date": old["date"], "command": old["command"]})
                store.systems = {row.pop("name"): row for row in tree["systems"]}
                store.runs = [run for run in tree["runs"] if not (again and "error" in run)]
                print(f"going on with {path.name}: {len(store.runs)} cells are there")
                return store
        return cls(folder / f"{about['date']}-{name}.json", about)

    def has(self, number: int, scenario: str, system: str) -> bool:
        """Returns whether a cell was measured."""
        return any(_cell(run) == (number, scenario, system) for run in self.runs)

    def add(self, run: dict[str, Any]) -> None:
        """Stores a cell, in place of an earlier one."""
        self.runs = [old for old in self.runs if _cell(old) != _cell(run)]
        self.runs.append(run)
        self.write()

    def write(self) -> None:
        """Writes the file, one line for each system and cell. It is replaced in one step."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        systems = [{"name": name, **row} for name, row in self.systems.items()]
        text = (
            f'{{"schema": {SCHEMA},\n"about": {json.dumps(self.about)},\n'
            f'"systems": {_lines(systems)},\n"figures": {_lines(self.figures)},\n'
            f'"guarantees": {json.dumps(self.guarantees())},\n'
            f'"runs": {_lines(self.runs)}}}\n'
        )
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)

    def guarantees(self) -> dict[str, Any]:
        """Returns what the killing of each system's worker showed."""
        found = {}
        for run in self.runs:
            if run["scenario"] == "kill" and "figures" in run:
                figures = {key.removeprefix("kill."): value for key, value in run["figures"].items()}
                about = self.systems.get(run["system"], {})
                words = {key: about.get(key, "") for key in ("promise", "recovery")}
                found[run["system"]] = {**words, **run["notes"], **figures}
        return found


def _cell(run: dict[str, Any]) -> tuple[int, str, str]:
    return run["round"], run["scenario"], run["system"]


def _lines(rows: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]" if rows else "[]"
