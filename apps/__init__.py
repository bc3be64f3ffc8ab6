"""Programs around the chain: each speaks JSON-RPC like any other client and imports nothing of the node."""
