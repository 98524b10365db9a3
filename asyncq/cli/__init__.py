"""The command line. Nothing below imports it: `import asyncq` must not pay for typer."""
