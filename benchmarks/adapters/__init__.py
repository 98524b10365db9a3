"""One file for each system, each with a `SYSTEM` that has the interface of `system.py`."""
