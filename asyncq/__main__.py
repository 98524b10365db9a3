"""`python -m asyncq` is the command `asyncq`."""

import sys

from asyncq.cli.main import run

if __name__ == "__main__":
    sys.exit(run())
