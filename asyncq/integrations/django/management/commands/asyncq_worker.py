"""`manage.py asyncq_worker`: runs the jobs of a site until a signal stops it."""

from __future__ import annotations

import os
import runpy
import sys
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from asyncq.integrations.django import worker_app

if TYPE_CHECKING:
    from django.core.management.base import CommandParser

    class BaseCommand:
        """The base class of commands. Django has no types."""

        def __getattr__(self, name: str) -> Any: ...

else:
    from django.core.management.base import BaseCommand

_VALUES: Final = {
    ("--concurrency", "-c"): ("N", "Jobs at the same time. Default: 100."),
    ("--threads",): ("N", "Plain functions at once. Default: 32."),
    ("--workers", "-w"): ("N", "Worker processes."),
    ("--grace",): ("TIME", "For running jobs at the stop. Default: 25s."),
    ("--name",): ("NAME", "Its name in results. Default: HOST-PID."),
    ("--loop",): ("KIND", "auto, asyncio or uvloop."),
    ("--max-jobs",): ("N", "A new process after so many jobs."),
    ("--max-memory",): ("SIZE", "A new process once it has so much: 512mb."),
    ("--also-url",): ("URL", "Serve this server, too, with half of -c for each."),
    ("--health-port",): ("PORT", "Serve /livez and /readyz."),
    ("--metrics-port",): ("PORT", "Serve metrics for Prometheus."),
    ("--log-level",): ("LEVEL", "debug, info, warning or error."),
    ("--log-format",): ("FORMAT", "plain or json."),
}
_FLAGS: Final = {
    "--strict": "Refuse a server that may lose jobs.",
    "--burst": "End when no job waits or runs.",
    "--fail-on-error": "With --burst: exit code 1 if a job has failed.",
    "--reload": "Start anew when a Python file has changed.",
    "--no-configure-logging": "Leave logging as the site sets it up.",
}


class Command(BaseCommand):
    """Runs the tasks of `django.tasks`, and those of the site's `AsyncQ` app.

    It is `asyncq worker` with Django set up: with the same options, signals and exit codes.
    """

    help = (
        "Runs jobs until it is stopped: the tasks of django.tasks whose backend is asyncq, and those of an "
        "AsyncQ app. SIGTERM or Ctrl-C lets running jobs end; a second signal hands them back."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Adds the options of `asyncq worker`, and those that say which app it is."""
        parser.add_argument(
            "queues",
            nargs="*",
            metavar="QUEUE",
            help="Queues to serve, most urgent first. Default: QUEUES, and those that tasks name.",
        )
        parser.add_argument("--backend", metavar="ALIAS", help="The backend of TASKS. Default: asyncq's.")
        parser.add_argument("--app", metavar="MODULE:APP", help="An AsyncQ app, in the place of a backend.")
        for names, (metavar, text) in _VALUES.items():
            parser.add_argument(*names, metavar=metavar, help=text)
        for name, text in _FLAGS.items():
            parser.add_argument(name, action="store_true", help=text)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Runs the worker in this process, to its end.

        Raises:
            CommandError: there is no app that it could run.
            SystemExit: at its end, with its exit code.
        """
        try:
            name = worker_app.chosen(options["backend"], options["app"])
            queues = options["queues"] or worker_app.queues_of(name)
        except ImproperlyConfigured as error:
            raise CommandError(str(error), returncode=78) from error
        # For the other processes of the worker. They do not find the site by the folder of `manage.py`.
        os.environ[worker_app.VARIABLE] = name
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [sys.path[0] or os.getcwd(), os.environ.get("PYTHONPATH")])  # noqa: PTH109  a text
        )
        sys.argv = ["asyncq", *_global_words(options), "worker", worker_app.TARGET, *queues, *_words(options)]
        # The command line is in a layer above, so it is started as a program: `python -m asyncq worker ...`.
        runpy.run_module("asyncq", run_name="__main__")


def _words(options: dict[str, Any]) -> list[str]:
    """Returns the options of this command as those of `asyncq worker`."""
    words = []
    for name, *_ in _VALUES:
        value = options[_key(name)]
        words += [] if value is None else [f"{name}={value}"]
    return [*words, *(name for name in _FLAGS if options[_key(name)])]


def _global_words(options: dict[str, Any]) -> list[str]:
    verbosity = options.get("verbosity", 1)
    words = ["--no-color"] if options.get("no_color") else []
    return [*words, *(["--quiet"] if verbosity == 0 else ["--verbose"] if verbosity > 1 else [])]


def _key(name: str) -> str:
    return name.removeprefix("--").replace("-", "_")
