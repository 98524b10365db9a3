"""One file per system, each with a `SYSTEM` that shows the face of `system.py`."""
