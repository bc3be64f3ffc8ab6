"""Networks of real nodes, each a process, on wires that misbehave on demand."""
