"""The parts of `asyncq bench`: plans (`latency`, `throughput`, `load`), what they measure with,
the comparison with a saved measurement, and the page.
"""

IN_FLIGHT = 100
"""How many callers there are in the closed loop of `asyncq bench throughput`."""
