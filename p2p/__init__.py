"""Peers: how validators and followers speak to each other. `network` has the streams; all else is without I/O."""
