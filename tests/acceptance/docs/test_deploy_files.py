"""The files of docs/deploy: what they say fits together, and what they start runs and stops.

No Docker, systemd or Kubernetes runs here. Their files are parsed, and the commands in them are run as real
processes with the options, probes and signals that the files name.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from helpers.own_server import free_port
from helpers.waiting import until_sync

from asyncq import config
from asyncq.cli.main import commands
from asyncq.embedded import launch
from asyncq.integrations import prometheus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "docs" / "deploy"
PAGE = (ROOT / "docs" / "howto" / "deploy.md").read_text(encoding="utf-8")
KILLED_AFTER_GRACE = 10
"""Seconds after its grace, at which a supervisor kills a worker that does not end."""


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in _text("asyncq-worker.service").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


UNIT = _unit()
SERVICES: dict[str, Any] = yaml.safe_load(_text("compose.yaml"))["services"]
DEPLOYMENT, SCALED = yaml.safe_load_all(_text("kubernetes.yaml"))
POD = DEPLOYMENT["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
IMAGE = json.loads(re.findall(r"^CMD (\[.*\])$", _text("Dockerfile"), re.MULTILINE)[0])

WORKERS: dict[str, list[str]] = {
    "systemd": shlex.split(UNIT["ExecStart"][0]),
    "image": IMAGE,
    "compose": shlex.split(SERVICES["worker"]["command"]),
    "kubernetes": CONTAINER["command"],
}
STOP_TIMEOUTS = {
    "systemd": UNIT["TimeoutStopSec"][0],
    "image": SERVICES["worker"]["stop_grace_period"],
    "compose": SERVICES["worker"]["stop_grace_period"],
    "kubernetes": str(POD["spec"]["terminationGracePeriodSeconds"]),
}


def _options(words: list[str]) -> dict[str, Any]:
    """Returns the options of a worker's command line, as the command line itself parses them."""
    assert (words[0].rpartition("/")[2], words[1]) == ("asyncq", "worker")
    command = commands(only_worker=True).commands["worker"]
    return dict(command.make_context("worker", words[2:]).params)


@pytest.mark.parametrize("place", WORKERS)
def test_the_command_line_accepts_the_options_of_a_file(place: str):
    options = _options(WORKERS[place])
    assert options["target"] == "shop:app"
    assert {"grace", "health_port", "metrics_port"} <= {name for name, value in options.items() if value}


def test_an_option_that_there_is_not_would_be_found():
    with pytest.raises(Exception, match="--gracious"):  # click is a part of typer in some versions
        _options([*WORKERS["compose"], "--gracious", "25s"])


@pytest.mark.parametrize("place", WORKERS)
def test_a_worker_may_use_its_grace_before_it_is_killed(place: str):
    grace = config.seconds(_options(WORKERS[place])["grace"])
    assert config.seconds(STOP_TIMEOUTS[place]) > grace + KILLED_AFTER_GRACE


def test_all_workers_have_the_same_ports_and_the_probes_ask_there():
    ports = {(_options(words)["health_port"], _options(words)["metrics_port"]) for words in WORKERS.values()}
    ((health, metrics),) = ports
    named = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert named == {"health": health, "metrics": metrics}
    assert POD["metadata"]["annotations"]["prometheus.io/port"] == str(metrics)
    probes = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: (probe["path"], probe["port"]) for name, probe in probes.items()} == {
        # A worker whose server is away must not be restarted: only readiness asks for the server.
        "startup": ("/livez", "health"),
        "liveness": ("/livez", "health"),
        "readiness": ("/readyz", "health"),
    }
    # `/livez` takes up to 5 s to say that a body blocks the loop.
    assert CONTAINER["livenessProbe"]["timeoutSeconds"] > 5
    assert f"http://127.0.0.1:{health}/readyz" in SERVICES["worker"]["healthcheck"]["test"][-1]
    served = int(re.findall(r"--port (\d+)", SERVICES["web"]["command"])[0])
    assert SERVICES["web"]["ports"] == [f"{served}:{served}"]
    assert f"http://127.0.0.1:{served}/health" in SERVICES["web"]["healthcheck"]["test"][-1]


def test_the_autoscaler_scales_the_deployment_by_a_metric_that_there_is():
    assert SCALED["spec"]["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == POD["metadata"]["labels"]
    assert "replicas" not in DEPLOYMENT["spec"], "kubectl apply would undo what the autoscaler did"
    (trigger,) = SCALED["spec"]["triggers"]
    figures = prometheus.Figures({"q": prometheus.QueueFigures(1, 2.0, 3)}, prometheus.NamespaceFigures(1, 0))
    measured = [prometheus._Measured(figures, 0.0, is_embedded=False, keeps=1.0)]
    families = {family.name: family.samples for family in prometheus._families(measured)}
    name, labels = re.findall(r"(asyncq_\w+)\{(\w+)=", trigger["metadata"]["query"])[0]
    assert labels in families[name][0].labels
    # The metric is reported by workers: without one there would be no value to scale by.
    assert SCALED["spec"]["minReplicaCount"] >= 1


def test_systemd_accepts_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = _text("asyncq-worker.service")
    program = UNIT["ExecStart"][0].split()[0]
    for shown, here in (
        (program, sys.executable),
        ("User=shop", f"User={getpass.getuser()}"),
        ("WorkingDirectory=/srv/shop", f"WorkingDirectory={tmp_path}"),
    ):
        assert shown in text
        text = text.replace(shown, here)
    unit = tmp_path / "asyncq-worker.service"
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_says_what_the_worker_does():
    assert UNIT["Type"] == ["notify"]
    assert UNIT["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert _options(WORKERS["systemd"])["workers"] > 1, "SIGHUP ends a single worker"
    assert UNIT["KillMode"] == ["mixed"]


def test_the_page_names_every_file_and_shows_no_other_unit():
    for path in FOLDER.iterdir():
        assert f"../deploy/{path.name}" in PAGE
    assert "[Service]" not in PAGE, "the unit would be shown twice"


# -- the services of compose.yaml, as processes of this machine -----------------------------------------


class Services:
    """Starts the commands of compose.yaml with ports of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copy(FOLDER / "shop.py", folder)
        self.redis, self.site = free_port(), free_port()
        self.running: list[subprocess.Popen[str]] = []

    def start(self, command: str, *more: str, **ports: int) -> subprocess.Popen[str]:
        words = shlex.split(command)
        for option, port in ports.items():
            words[words.index(f"--{option.replace('_', '-')}") + 1] = str(port)
        program = [str(launch.find())] if words[0] == "valkey-server" else [sys.executable, "-m", words[0]]
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ASYNCQ_")},
            **{
                name: value.replace("valkey:6379", f"127.0.0.1:{self.redis}")
                for name, value in SERVICES["worker"]["environment"].items()
            },
            "ASYNCQ_ENV": "production",
        }
        process = subprocess.Popen(
            [*program, *words[1:], *more],
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.running.append(process)
        return process

    def stop(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    services = Services(tmp_path)
    yield services
    services.close()


def _is_healthy(service: str, shown: int, port: int) -> Callable[[], bool]:
    """Runs the health check of a service as Docker does, with a port of this machine."""
    kind, program, *words = SERVICES[service]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    words = [word.replace(f":{shown}/", f":{port}/") for word in words]
    assert any(f":{port}/" in word for word in words)

    def run() -> bool:
        done = subprocess.run([sys.executable, *words], capture_output=True, check=False, timeout=30)
        return done.returncode == 0

    return run


def test_the_services_become_healthy_answer_and_stop_in_time(services: Services):
    services.start(
        SERVICES["valkey"]["command"], "--port", str(services.redis), "--dir", str(services.folder)
    )
    health, metrics = free_port(), free_port()
    is_ready = _is_healthy("worker", 8080, health)
    assert not is_ready(), "nobody listens yet"
    # `--strict` refuses a server that may lose jobs: the options of the server are checked by it.
    worker = services.start(
        SERVICES["worker"]["command"], "--strict", health_port=health, metrics_port=metrics
    )
    web = services.start(SERVICES["web"]["command"], port=services.site)
    until_sync(is_ready, "the worker to be healthy")
    until_sync(_is_healthy("web", 8000, services.site), "the site to be healthy")

    answer = httpx.get(f"http://127.0.0.1:{services.site}/sum", params={"x": 4, "y": 4}, timeout=30)
    assert (answer.status_code, answer.text) == (200, "8")
    shown = httpx.get(f"http://127.0.0.1:{metrics}/metrics", timeout=30).text
    assert 'asyncq_jobs_total{queue="default",state="SUCCESS",task="shop.add"} 1.0' in shown

    code, output = services.stop(worker)
    assert (code, "WARNING" in output) == (0, False), output
    code, output = services.stop(web)
    assert code in {0, -signal.SIGTERM}, output


# -- the memory of results ------------------------------------------------------------------------------


@pytest.mark.without_secrets
def test_a_result_takes_as_much_memory_as_the_page_says():
    shown = {
        int(size.replace(",", "")): int(each.replace(",", ""))
        for size, each in re.findall(r"^ *([\d,]+) bytes returned: +([\d,]+) bytes", PAGE, re.MULTILINE)
    }
    assert len(shown) >= 4
    done = subprocess.run(
        [sys.executable, "benchmarks/result_memory.py", "2000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    measured = {
        int(size.replace(",", "")): int(each.replace(",", ""))
        for size, each in re.findall(
            r"^ *([\d,]+) bytes returned: +([\d,]+) bytes", done.stdout, re.MULTILINE
        )
    }
    assert measured.keys() == shown.keys()
    # Few jobs: the tables of the server grow in steps.
    assert measured == {size: pytest.approx(each, rel=0.1, abs=60) for size, each in shown.items()}
