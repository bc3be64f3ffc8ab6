"""How a node lives with Python's interpreter.

A full pass of the garbage collector over a loaded node's objects takes tens of milliseconds of a slot's 333. And the
storage thread, while it executes a block, lends the interpreter's lock to the event loop only when the loop has waited
for it so long; the loop gives it back at each read of the database and whenever it looks for news, so it waits often.
"""

import gc
import sys
from typing import Final

# Young objects are looked at every 50,000 allocations, all of them every 50 million: some minutes at full load.
THRESHOLDS: Final = (50_000, 10, 100)
LOCK_WAIT_S: Final = 0.0005  # a tenth of what is usual


def settle_interpreter() -> None:
    """Call it once, when everything that lives as long as the process has been made: the garbage collector does not
    look at it again."""
    sys.setswitchinterval(LOCK_WAIT_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
