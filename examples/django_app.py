"""Django 6: its tasks as jobs of asyncq, sent on commit, awaited in a view, and shown by their ids.

Run it with `python examples/django_app.py`: it makes a database, starts `manage.py runserver` and `manage.py
asyncq_worker` of the site in `django_site`, sends requests as a client would, and ends. Needs `pip install
'asyncq[django]'` and Python 3.12.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

SITE = Path(__file__).parent / "django_site"
with socket.create_server(("127.0.0.1", 0)) as free:
    ADDRESS = f"127.0.0.1:{free.getsockname()[1]}"


def manage(*words: str) -> subprocess.Popen[bytes]:
    # What runserver prints to stdout is for people.
    command = [sys.executable, SITE / "manage.py", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603


@contextmanager
def running(*words: str):
    program = manage(*words)
    try:
        yield
    finally:
        program.terminate()
        program.wait()


def ask(path: str) -> tuple[int, dict[str, object]]:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urlopen(f"http://{ADDRESS}{path}") as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, json.load(error)
        except URLError:  # the site does not listen yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def until_ended(id: object) -> object:
    while True:
        _, shown = ask(f"/tasks/{id}")
        if shown["status"] in {"SUCCESSFUL", "FAILED"}:
            return shown
        time.sleep(0.05)


def main() -> None:
    manage("migrate", "--run-syncdb", "--verbosity", "0").wait()
    with running("asyncq_worker", "--verbosity", "0"), running("runserver", "--noreload", ADDRESS):
        print("GET /sum:", ask("/sum?x=4&y=4"))

        status, ordered = ask("/orders/tea")
        print("GET /orders/tea:", status, until_ended(ordered["task"]))

        status, cancelled = ask("/orders/tea?cancel")
        print("GET /orders/tea?cancel:", status, cancelled["detail"])
        print("its task:", ask(f"/tasks/{cancelled['task']}"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SITE_DATABASE"] = f"{folder}/site.sqlite3"
        main()

# Output:
# GET /sum: (200, {'sum': 8})
# GET /orders/tea: 202 {'status': 'SUCCESSFUL', 'value': 1}
# GET /orders/tea?cancel: 409 the customer has changed their mind
# its task: (404, {'detail': 'there is no such task'})
