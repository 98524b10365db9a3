"""`asyncq server`."""

import json
import signal


def test_run_keeps_a_server_up_that_status_sees_and_stop_respects(project, stop):
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


def test_force_stops_a_server_in_use(project):
    server = project.start("server", "run")
    server.stdout.readline()
    stopped, status = project.run_each(("server", "stop", "--force"), ("server", "status"))
    assert (stopped.code, stopped.err) == (0, f"stopped the server of {project.folder}\n")
    assert status.code in {0, 3}  # `server run` brings it back within a second
    server.kill()


def test_it_is_about_embedded_servers_only(project):
    ended = project.run("server", "status", ASYNCQ_URL="redis://me:secret@db")
    assert (ended.code, ended.err.splitlines()[0]) == (
        78,
        "error: the server here is redis://me:***@db, not an embedded one",
    )
