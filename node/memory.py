"""How a node lives with Python's garbage collector, whose full pass over a loaded node's objects takes tens of
milliseconds of a slot's 333."""

import gc
from typing import Final

# Young objects are looked at every 50,000 allocations, all of them every 50 million: some minutes at full load.
THRESHOLDS: Final = (50_000, 10, 100)


def settle_memory() -> None:
    """Call it once, when everything that lives as long as the process has been made: it is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
