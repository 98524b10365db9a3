"""asyncq of this checkout, run as `baseline` runs another one."""

from system import HERE

from adapters.baseline import Checkout

SYSTEM = Checkout("current", str(HERE.parent))
