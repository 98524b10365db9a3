"""`Setup`: the world of one exploration (jobs, workers, waiters), and the faults that may happen."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.rules import Rules

ALONE: tuple[tuple[int, ...], ...] = ((),)
APART: tuple[tuple[int, ...], ...] = ((), ())
CHAIN: tuple[tuple[int, ...], ...] = ((), (0,))
ROW: tuple[tuple[int, ...], ...] = ((), (0,), (1,))
DIAMOND: tuple[tuple[int, ...], ...] = ((), (0,), (0,), (1, 2))
FAN_OUT: tuple[tuple[int, ...], ...] = ((), (0,), (0,))
FAN_IN: tuple[tuple[int, ...], ...] = ((), (), (0, 1))


@dataclass(frozen=True, slots=True)
class Setup:
    """Jobs, workers, waiters, and the faults that may hit them."""

    rules: Rules = field(default_factory=Rules)
    """The protocol, or a mutant of it."""

    faults: int = 1
    """How many faults may happen on one path, of the kinds that are switched on below."""
    crashes: bool = True
    """A worker process is killed at any point."""
    pauses: bool = True
    """A worker process stands still for longer than its lease (SIGSTOP, a suspended machine)."""
    lost_replies: bool = True
    """The server executes a call, its reply is lost, and the caller sends it again, perhaps much later."""
    lost_publishes: bool = True
    """An outcome is written, and its notification reaches no waiter."""
    lost_connections: bool = True
    """A waiter's subscription breaks."""
    orphan_reads: bool = False
    """A process dies (or takes a new session id), and its blocked read stays at the server."""
    flushes: bool = False
    """The server loses everything and numbers its entries from the start."""
    failovers: bool = False
    """A replica takes over that has not received the newest writes: the server's keys are as they were at an
    earlier time. Connections break. With shards, it takes over one of them, and the other one loses nothing.
    """
    stops: bool = False
    """A worker is asked to stop: it releases its jobs and unregisters."""

    parents: tuple[tuple[int, ...], ...] = CHAIN
    """For each job that clients enqueue, its parents. If any job has parents, all jobs are one workflow."""
    shards: tuple[int, ...] = ()
    """For each job its shard, 0 or 1; the workflow is accepted in shard 0. Empty: there is one shard."""
    at_once: int | None = None
    """How many jobs of shard 0 are accepted in one step; None for all."""
    on_cluster: bool = False
    """The shards are on several servers: workers look for jobs that wait for an end which was lost."""
    forwarders: int = 0
    """How many forwarders there are."""
    taken: int | None = None
    """The job whose id another call takes while the job is on its way to its shard."""
    kept: int | None = None
    """The job whose value is kept once for all jobs that wait for it; these wait for no other job."""
    notified_at_once: int = 9
    """How many dependents one call notifies of an end."""
    on_error: int | None = None
    """The job that runs only if one of its parents fails."""
    fails: int | None = None
    """The job whose body may fail for good."""
    replaced: int | None = None
    """The job whose first body may replace it by a workflow: another job, and then the job itself again."""
    workers: int = 2
    most_held: int = 2
    """How many entries a worker may hold, including those on their way to it."""
    waiters: int = 2
    """Waiter 0 enqueued the jobs and waits for the last one; waiter 1 has only the id of job 0."""
    max_crashes: int = 3
    delayed: bool = False
    """Job 0 is enqueued for later."""
    retries: int = 0
    """How often the body of job 0 may fail and be retried."""
    poison: int | None = None
    """The job whose body kills its worker."""
    revoke: int | None = None
    """The job that a client revokes."""
    terminate: bool = False
    """Whether a revocation signal also cancels a body that runs. Else it only prevents the start."""
    expire: int | None = None
    """The job whose deadline passes."""
    executor_queues: bool = False
    """A worker may have no thread for a job, and then puts it into an executor queue: once for each entry."""
    fetches_ahead: bool = False
    """Workers fetch jobs before they can begin them, and note up to which entry their bodies have begun. Jobs
    that are given back keep their turn in a returned queue, which is no stream of its own here.
    """
    unknown: int | None = None
    """The job whose task the first worker does not know. All other workers know it."""
    forget: int | None = None
    """The job that a client forgets."""
    same_id: bool = False
    """Job 1 is enqueued with the id of job 0, once job 0 was forgotten. Both jobs are forgotten."""
    records_expire: bool = False
    """The record of a job that has ended may expire."""

    @property
    def loses_data(self) -> bool:
        """Whether the server may lose what it has acknowledged."""
        return self.flushes or self.failovers

    @property
    def enqueued(self) -> int:
        """How many jobs clients enqueue."""
        return len(self.parents)

    @property
    def jobs(self) -> int:
        """How many jobs there may be: with a replacement, the last one is the job that it adds."""
        return self.enqueued + (self.replaced is not None)

    @property
    def is_workflow(self) -> bool:
        """Whether the jobs are enqueued in one call."""
        return any(self.parents)

    def apart(self, one: int, other: int) -> bool:
        """Returns whether two jobs are in different shards."""
        return bool(self.shards) and self.shards[one] != self.shards[other]

    def dependents(self, job: int) -> tuple[int, ...]:
        """Returns the jobs that wait for this one, as clients enqueue them."""
        return tuple(child for child, parents in enumerate(self.parents) if job in parents)

    def height(self, job: int) -> int:
        """Returns how far a job is from the end of its workflow."""
        return max((self.height(child) + 1 for child in self.dependents(job)), default=0)

    def knows(self, index: int, job: int) -> bool:
        """Returns whether the worker with an index knows the task of a job."""
        return index != 0 or job != self.unknown

    def waits_for(self, waiter: int) -> int:
        """Returns the job that a waiter waits for."""
        return self.enqueued - 1 if waiter == 0 else 0
