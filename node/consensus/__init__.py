"""Consensus as a function: `step(event, now) -> effects`, without I/O, clock or randomness."""
