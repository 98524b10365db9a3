"""All trials, by the names that `chaos/run.py --only` takes. A trial gets a scale, a seed and a lease, and
returns its report.
"""

from chaos.trials import (
    baddays,
    clusters,
    crashes,
    failovers,
    forks,
    kills,
    restarts,
    revocations,
    schedules,
    shards,
    values,
    wires,
    workflows,
)

TRIALS = {
    "kill-workers": kills.kill_workers,
    "kill-everything": kills.kill_everything,
    "rolling-restart": restarts.rolling_restart,
    "rolling-deployment": restarts.rolling_deployment,
    "revocation-race": revocations.race,
    "redelivery": kills.redelivery,
    "lost-replies": wires.lost_replies,
    "cancelled-calls": wires.cancelled_calls,
    "dead-behind-live": kills.dead_behind_live,
    "black-hole": wires.black_hole,
    "memory": wires.memory,
    "poison": kills.poison,
    "hung-server": wires.hung_server,
    "dead-idle-connection": wires.dead_idle_connection,
    "lost-pushes": wires.lost_pushes,
    "lost-enqueue": wires.lost_enqueue,
    "workflows": workflows.workflows,
    "ticks": schedules.ticks,
    "large-values": values.large_values,
    "shards": shards.shards,
    "crash-table": crashes.crash_table,
    "bad-days": baddays.bad_days,
    "failovers": failovers.failovers,
    "cluster": clusters.quick,
    "cluster-slow": clusters.slow,
    "forked-children": forks.forked_children,
}
