"""The meter gateway: from a meter's registers to `report` on the chain, as a client of JSON-RPC."""
