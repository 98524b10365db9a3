"""The scenarios with their sizes, in three grids: a smoke test, the comparison of all systems, and the long
one.
"""

from scenario import Scenario

RATES = (100, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
SERVICE_RATES = (100, 250, 500, 1_000, 1_500, 2_000)
CORE = ("enqueue", "drain", "closed", "inflight100", "open")
"""The scenarios that are also run with other servers and other versions of Python."""
GROWTH = ("grow_queued", "grow_delayed", "grow_waiters", "grow_queues", "grow_workers")
"""The scenarios of growth: their figures are curves."""
SERVICE = ("service", "service_faults")
"""The scenarios of a web service."""
SMOKE = ("enqueue", "drain", "closed", "inflight100", "open", "waiters1000", "kill", *SERVICE, *GROWTH)
"""The scenarios of the smoke test."""
FEATURED = {"asyncq"}
"""The systems that the scenarios of features are for."""
OURS = {"raw", "asyncq"}
"""The systems that the scenarios of sizes, workers and volume are for."""


def scenarios(grid: str) -> dict[str, Scenario]:
    """Returns every scenario by name, with the sizes of the grid: `smoke`, `bench` or `full`."""
    from backlog_growth import DelayGrowth, QueueGrowth
    from costs import Idle, LoneJob, Start
    from guarantees import Kill
    from latency import BlockingCalls, OneInFlight
    from load import Ladder
    from payloads import Payloads
    from service import Service, ServiceFaults
    from throughput import Drain, Enqueue, ManyInFlight
    from volume import Delayed, Queued
    from waiters import WaiterGrowth, Waiters
    from worker_growth import ManyWorkers, ServedQueues

    if grid == "smoke":
        return {
            "enqueue": Enqueue(jobs=2_000, seconds=0.1),
            "drain": Drain(jobs=2_000),
            "closed": OneInFlight(jobs=100, seconds=0.2, warmup=10),
            "inflight100": ManyInFlight(jobs=1_000, seconds=0.2),
            "open": Ladder(rates=(100, 500), seconds=0.2, warmup=0.1),
            "waiters1000": Waiters(count=1_000, wait=0.1),
            "kill": Kill(jobs_per_slot=6, most=0.5, after=0.1),
            "lone": LoneJob(jobs=20),
            "idle": Idle(seconds=0.5),
            "start": Start(starts=1),
            "waiters10000": Waiters(count=10_000, wait=0.1),
            "payloads": Payloads(seconds=0.1),
            "sync": BlockingCalls(jobs=100, seconds=0.2, warmup=5),
            "drain2": Drain(jobs=2_000, workers=2),
            "queued": Queued(jobs=2_000),
            "delayed": Delayed(jobs=1_000, seconds=1),
            "grow_queued": QueueGrowth(sizes=(3_000,), piece=2_000, times=1),
            "grow_delayed": DelayGrowth(sizes=(0, 1_000), piece=1_000, times=1, due=(1_000,), lead=0.2),
            "grow_waiters": WaiterGrowth(counts=(100,), wait=0.1),
            "grow_queues": ServedQueues(counts=(20,), jobs=20),
            "grow_workers": ManyWorkers(counts=(1, 3), jobs=20, seconds=0.2, pause=0.0),
            "service": Service(rates=(50,), seconds=0.2, warmup=0.1),
            "service_faults": ServiceFaults(aborted=20, rate=50, seconds=1.0),
        } | _features()
    long = grid == "full"
    seconds = 5.0 if long else 1.6
    return {
        "enqueue": Enqueue(jobs=200_000 if long else 20_000, seconds=seconds / 2),
        "drain": Drain(jobs=60_000 if long else 20_000),
        "closed": OneInFlight(jobs=20_000, seconds=seconds),
        "inflight100": ManyInFlight(jobs=400_000, seconds=seconds),
        "open": Ladder(rates=RATES, seconds=10.0 if long else 1.6, warmup=1.0 if long else 0.3),
        "lone": LoneJob(jobs=500 if long else 100),
        "idle": Idle(seconds=30),
        "start": Start(starts=3 if long else 1),
        "waiters1000": Waiters(count=1_000),
        "waiters10000": Waiters(count=10_000),
        "kill": Kill(),
        "payloads": Payloads(seconds=seconds / 2),
        "sync": BlockingCalls(jobs=20_000, seconds=seconds),
        "drain2": Drain(jobs=60_000 if long else 20_000, workers=2),
        "queued": Queued(jobs=1_000_000 if long else 100_000),
        "delayed": Delayed(jobs=100_000 if long else 10_000, seconds=20 if long else 5),
        "grow_queued": QueueGrowth(
            sizes=(1_000, 10_000, 100_000, 1_000_000), piece=20_000, times=4 if long else 2
        ),
        "grow_delayed": DelayGrowth(
            sizes=(0, 1_000, 10_000, 100_000),
            piece=5_000,
            times=5 if long else 3,
            due=(1_000, 10_000, 100_000),
        ),
        "grow_waiters": WaiterGrowth(counts=(1, 100, 1_000, 10_000)),
        "grow_queues": ServedQueues(counts=(1, 10, 100, 1_000), jobs=500 if long else 100),
        "grow_workers": ManyWorkers(counts=(1, 10, 50, 200), jobs=500 if long else 200, seconds=15),
        "service": Service(rates=SERVICE_RATES, seconds=10.0 if long else 3.0, warmup=1.0),
        "service_faults": ServiceFaults(aborted=2_000, rate=300, seconds=8.0),
    } | _features()


def names(grid: str) -> list[str]:
    """Returns the scenarios that a grid runs when none are named."""
    every = scenarios(grid)
    if grid == "smoke":
        return list(SMOKE)
    if grid == "full":
        return list(every)
    left_out = {name for name, each in every.items() if each.features and name not in SERVICE}
    return [name for name in every if name not in left_out | {"queued", "delayed"}]


def concerns(scenario_name: str, scenario: Scenario, system: str) -> bool:
    """Returns whether a scenario is meant for a system, whose name may end with `@` and a variant."""
    adapter, _, variant = system.partition("@")
    if variant and scenario_name not in CORE:
        return False
    if scenario.features:
        return system in FEATURED
    if scenario_name == "drain2" or scenario.ours:
        return adapter in OURS
    return True


def _features() -> dict[str, Scenario]:
    # They import parts of asyncq, and anyio, which a peer's environment does not have.
    try:
        from micro import Kinds, Micro, WideGroups
        from streams import OneStream
        from waits import Revocation, Waits
        from workflows import Chain, FanIn
    except ImportError:
        return {}
    return {
        "waits": Waits(rounds=5),
        "revoke": Revocation(rounds=100),
        "chain": Chain(rounds=500),
        "fanin": FanIn(rounds=15),
        "stream": OneStream(ticks=400, items=40_000, rounds=5),
        "kinds": Kinds(jobs=500),
        "groups": WideGroups(width=300),
        "micro": Micro(times=20_000),
    }
