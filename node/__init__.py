"""One validator or full node: the ledger on disk, the pool of pending transactions, and the loop that waits."""
