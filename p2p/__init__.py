"""Peers: how validators and followers speak to each other. Empty until the network has more than one node."""
