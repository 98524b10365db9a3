"""Help that fits a screen, and a face that stays as it is."""

import difflib
from pathlib import Path

PAGES = Path(__file__).with_name("help.txt")
COMMANDS = [
    (),
    ("worker",),
    ("dev",),
    ("call",),
    ("result",),
    ("result", "get"),
    ("result", "watch"),
    ("result", "forget"),
    ("jobs",),
    ("jobs", "ls"),
    ("jobs", "show"),
    ("jobs", "revoke"),
    ("jobs", "retry"),
    ("revoke",),
    ("why",),
    ("inspect",),
    ("top",),
    ("queues",),
    ("queues", "ls"),
    ("queues", "show"),
    ("queues", "pause"),
    ("queues", "resume"),
    ("queues", "purge"),
    ("workers",),
    ("workers", "ls"),
    ("workers", "ping"),
    ("workers", "quiet"),
    ("workers", "stop"),
    ("workers", "stacks"),
    ("dlq",),
    ("dlq", "ls"),
    ("dlq", "show"),
    ("dlq", "requeue"),
    ("dlq", "purge"),
    ("schedule",),
    *(("schedule", verb) for verb in ("ls", "next", "preview", "run", "pause", "resume", "rm")),
    ("server",),
    ("server", "run"),
    ("server", "status"),
    ("server", "stop"),
    ("bench",),
    ("bench", "latency"),
    ("bench", "load"),
    ("bench", "throughput"),
    ("shell",),
    ("completion",),
    ("version",),
]


def test_every_help_page_fits_a_screen_and_is_unchanged(project, request):
    """To accept new pages: run with `HELP_PAGES=write`, and read the difference before it is committed."""
    ends = project.run_each(*((*words, "--help") for words in COMMANDS))
    for words, page in zip(COMMANDS, ends, strict=True):
        lines = page.out.splitlines()
        assert page.code == 0, page
        assert len(lines) <= 40, f"{words}: {len(lines)} lines"
        assert max(map(len, lines)) <= 80, f"{words}: {max(lines, key=len)}"
    shown = "\n".join(
        f"$ asyncq {' '.join(words)}\n{page.out}" for words, page in zip(COMMANDS, ends, strict=True)
    )
    if project.environ.get("HELP_PAGES") == "write":
        PAGES.write_text(shown)
    assert shown == PAGES.read_text(), "\n" + "\n".join(
        difflib.unified_diff(
            PAGES.read_text().splitlines(), shown.splitlines(), "help.txt", "now", lineterm=""
        )
    )


def test_mistyped_commands_are_usage_errors(project):
    bare, wrong, number, zero = project.run_each(
        (), ("wroker",), ("worker", "-c", "x"), ("worker", "-c", "0")
    )
    assert (bare.code, wrong.code, number.code, zero.code) == (2, 2, 2, 2)
    assert "Did you mean 'worker'" in wrong.err
    assert "'x' is not a whole number" in number.err
    assert "0 is less than 1" in zero.err


def test_the_version_command_shows_the_versions_of_python_and_libraries(project):
    text, json_ = project.run_each(("version",), ("version", "--json"))
    assert text.out.startswith("asyncq 0.1.0\npython 3.")
    assert '"typer": "' in json_.out


def test_the_version_option_prints_one_line_wherever_it_is_given(project):
    for ended in project.run_each(("--version",), ("worker", "shop", "--version")):
        assert (ended.code, ended.out, ended.err) == (0, "asyncq 0.1.0\n", "")
