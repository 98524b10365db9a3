"""The worker: reads jobs from the queues, runs them, and stores their outcomes.

`worker` is the public class, `worker_session` makes the parts of one registration. A job passes `fetcher`
(read), `attempt` (run), `permits` (may it start), `wait_slots` (it waits for another job), `outcome_writer`
(end). Beside the jobs run `heartbeat`, `recovery`, `delayed_jobs` and `announcer`; `shutdown` ends a session.
All of it runs on one loop, the worker's, except the threads of `heartbeat` and `stall_watch`, bodies in
threads, and `processes`.
"""

from asyncq.worker.worker import Worker

__all__ = ["Worker"]
