"""`asyncq server`."""

import json
import signal


def test_server_run_keeps_a_server_that_status_shows_and_stop_refuses_to_end(project, stop):
    server = project.start("server", "run")
    url = server.stdout.readline().strip()
    status, refused = project.run_each(("server", "status", "--json"), ("server", "stop"))
    found = json.loads(status.out)
    assert (status.code, found["running"], found["in_use"]) == (0, True, True)
    assert url == f"unix://{found['socket']}"
    assert (refused.code, "is in use" in refused.err) == (1, True), refused
    assert stop(server, signal.SIGTERM).code == 0
    ended = project.run("server", "stop")
    assert (ended.code, ended.err) == (0, f"no server runs for {project.folder}\n")


def test_server_stop_with_force_stops_a_server_in_use(project):
    server = project.start("server", "run")
    server.stdout.readline()
    stopped, status = project.run_each(("server", "stop", "--force"), ("server", "status"))
    assert (stopped.code, stopped.err) == (0, f"stopped the server of {project.folder}\n")
    assert status.code in {0, 3}  # `server run` brings it back within a second
    server.kill()


def test_server_commands_refuse_a_server_that_is_not_embedded(project):
    ended = project.run("server", "status", ASYNCQ_URL="redis://me:secret@db")
    assert (ended.code, ended.err.splitlines()[0]) == (
        78,
        "error: the server here is redis://me:***@db, not an embedded one",
    )
