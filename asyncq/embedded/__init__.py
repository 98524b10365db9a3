"""The embedded server: one Valkey per project. The project's first process starts it, the last one stops it.

Two directories belong to a project:

- the *data* directory `<project>/.asyncq/` (0700) holds what must survive a reboot: the append-only file,
  `server.log`, `meta.json` (which server wrote the data, and where its socket is) and `server.lock`;
- the *runtime* directory `$XDG_RUNTIME_DIR/asyncq/<hash of the project>/`, else `/tmp/asyncq-<uid>/<hash>/`,
  holds what needs a local file system: the socket `s`, `start.lock` and `users.lock`.

Three locks, each an `flock`, so that the kernel drops them for a process that is killed:

- `start.lock`, exclusive: a process holds it while it starts, attaches or leaves, so only one does at a time.
- `users.lock`, shared: each process that uses the server holds it. A process that leaves and then gets it
  exclusively is the last user, and shuts the server down. The kernel counts the users; pid files would count
  dead processes and trust reused pids.
- `server.lock`, exclusive: the *server* itself holds it, through a descriptor that it inherits. Two servers
  on one append-only file would destroy it, and the runtime directory alone cannot prevent that: a cron job
  has no XDG_RUNTIME_DIR, a logout deletes it, and two containers that mount the same project each have a
  `/tmp` of their own.

Code that takes more than one of them takes `start.lock` first.

Everything here blocks (35 ms to start a server, 1 ms to attach): call it from a thread when a loop is
running. Nothing here uses a Redis client.

The files, from the ground up: `resp` asks a server over its socket; `directories` knows where it lives;
`locks` takes the locks; `launch` finds the program and starts it; `server_handle` is a user's hold on a
server. On these stand `shared` (the server of a project) and `throwaway` (the server of `memory://`), and on
these `operations`, for the command line. `project` finds the project, and refuses an embedded server in
production.
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
