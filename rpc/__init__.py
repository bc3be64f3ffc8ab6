"""The door: Ethereum's JSON-RPC over HTTP and WebSocket, so that ordinary wallets and libraries work unmodified."""
