"""The command line `asyncq`: one command a file, and `main`, which puts them together.

Commands run on the main thread; each runs its coroutine with `loop.run`. Nothing below imports this package,
for `import asyncq` must not pay for typer. The docstring of a command is its help text.
"""
