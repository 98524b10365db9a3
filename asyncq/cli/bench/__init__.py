"""The parts of `asyncq bench`: plans (`latency`, `throughput`), load generator, histogram, worker, report."""
