"""One validator or full node: the ledger on disk, the pool of pending transactions, and the loop that waits."""

from typing import Final

VERSION: Final = "0.1.0"
