"""The histogram of `asyncq bench`, loaded by its path.

The harness runs in the environments of the peers, too. They have no asyncq, and importing the package would
need all that it depends on. The histogram itself needs nothing.
"""

import importlib.util
from pathlib import Path
from typing import Any

_PATH = Path(__file__).resolve().parents[1] / "asyncq" / "cli" / "bench" / "histogram.py"
_spec = importlib.util.spec_from_file_location("histogram_of_asyncq_bench", _PATH)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

Histogram: Any = _module.Histogram
"""`asyncq.cli.bench.histogram.Histogram`."""
