"""The ledger: pure functions from a state and a transaction to the next state.

Nothing in this package reads a file, a clock, a socket or a random number; nothing in it imports another of the
project's packages. The same blocks give the same bytes on every machine.
"""
