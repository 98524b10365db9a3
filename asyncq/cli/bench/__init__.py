"""The parts of `asyncq bench`: plans (`latency`, `throughput`, `load`), what they measure with,
the comparison with a saved measurement, and the page.
"""
