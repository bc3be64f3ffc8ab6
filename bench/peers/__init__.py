"""Other chains that run the same workload, side by side with a node: `python -m bench.peers`."""
