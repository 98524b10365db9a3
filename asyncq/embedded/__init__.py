"""The embedded server: one Valkey per project, started by its first process, stopped by the last.

Two directories belong to a project:

- the *data* directory `<project>/.asyncq/` (0700) holds what must survive a reboot: the append-only file,
  `server.log`, `meta.json` (which server wrote the data, and where its socket is) and `server.lock`;
- the *runtime* directory `$XDG_RUNTIME_DIR/asyncq/<hash of the project>/`, else `/tmp/asyncq-<uid>/<hash>/`,
  holds what needs a local file system: the socket `s`, `start.lock` and `users.lock`.

Three locks, each an `flock`, so that the kernel drops them for a process that is killed:

- `start.lock`, exclusive: held while somebody starts, attaches or leaves. One at a time.
- `users.lock`, shared: held by each process that uses the server. Whoever leaves and then gets it exclusively
  was the last one out, and shuts the server down. The kernel counts; pid files would count the dead and trust
  reused pids.
- `server.lock`, exclusive: held by the *server* itself, through a descriptor it inherits. Two servers on one
  append-only file would destroy it, and the runtime directory alone cannot prevent that: a cron job has no
  XDG_RUNTIME_DIR, a logout deletes it, and two containers that mount the same project each have a `/tmp` of
  their own.

Everything here blocks (35 ms to start a server, 1 ms to attach): call it from a thread when a loop is
running.

The files, from the ground up: `resp`, the talk with a server; `directories`, where it lives; `locks`;
`launch`, which server is started, and how; `server_handle`, what somebody who uses one has in hand. On them
stand `shared`, the server of a project, and `throwaway`, that of `memory://`; on these `operations`, for the
command line. `project` decides before all that.
"""

from asyncq.embedded.operations import Status, run_foreground, status, stop
from asyncq.embedded.project import refuse_or_warn, resolve
from asyncq.embedded.server_handle import EmbeddedServer
from asyncq.embedded.shared import acquire
from asyncq.embedded.throwaway import private

__all__ = [
    "EmbeddedServer",
    "Status",
    "acquire",
    "private",
    "refuse_or_warn",
    "resolve",
    "run_foreground",
    "status",
    "stop",
]
