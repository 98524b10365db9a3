"""Runs the worker of a peer whose own command line has no uvloop or logs each job. Its argument is the module
of the adapter, whose coroutine function `work` runs the worker.

SIGTERM cancels it, unless the peer handles the signal itself.
"""

import asyncio
import importlib
import logging
import signal
import sys
from contextlib import suppress

import uvloop


async def main(module: str) -> None:
    working = asyncio.ensure_future(importlib.import_module(module).work())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    with suppress(asyncio.CancelledError):
        await working


if __name__ == "__main__":
    logging.disable()
    uvloop.run(main(sys.argv[1]))
