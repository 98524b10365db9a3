"""What the first process of a container owes the others.

Linux gives it every process whose parent has ended, and such a process stays as a zombie until its parent
asks for its exit code. Python cannot do that beside its own children: who asks for the code of any child
takes away the codes that others wait for. So the first process does nothing else, and all the rest runs in a
child of it.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

_FORWARDED = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
)


def run_in_child() -> None:
    """Goes on in a child, if this is the first process of a container; does nothing otherwise.

    The first process itself does not return. It gives its signals to the child, reaps every process that
    ends, and ends with the exit code of the child; a signal that has ended the child counts as 128 and its
    number. The kernel then ends all processes that are left in the container.

    To be called before any thread or event loop is made: a fork copies none of them.
    """
    if os.getpid() != 1:
        return
    watched = {*_FORWARDED, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child:
        _serve(child, watched)
    _lead_terminal()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _lead_terminal() -> None:
    """Makes this process the one that a terminal's Ctrl-C reaches. Otherwise the first process would get it,
    too, and the signal would count twice.
    """
    os.setpgid(0, 0)
    with suppress(OSError):  # there is no terminal
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        # A process of the background that takes the terminal is stopped, unless it ignores this signal.
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            os.tcsetpgrp(terminal, os.getpgrp())
        finally:
            signal.signal(signal.SIGTTOU, before)
            os.close(terminal)


def _serve(child: int, watched: set[signal.Signals]) -> None:
    """Forwards signals and reaps processes until the child has ended. Does not return."""
    while True:
        number = signal.sigwait(watched)
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        while True:  # one signal may stand for several processes
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == child:
                code = os.waitstatus_to_exitcode(status)
                sys.stdout.flush()
                os._exit(code if code >= 0 else 128 - code)
            if not ended:
                break
