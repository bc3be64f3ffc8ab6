"""What an operator asks about the node itself, rather than about its chain."""

from typing import Final

from rpc import schemas
from rpc.door import Caller
from rpc.jsontext import Json
from rpc.methods import Registry

NODE_METHODS: Final = Registry()


@NODE_METHODS.method("ctt_nodeStatus", result=schemas.NODE_STATUS)
def node_status(caller: Caller) -> Json:
    """The node's version, and how late its event loop was in the last minute: what load may cost consensus."""
    lag = caller.chain.loop_lag()
    return {
        "clientVersion": caller.chain.client_version,
        "loopLagMs": {
            "beats": lag.beats,
            "p50": round(lag.p50_ms, 1),
            "p99": round(lag.p99_ms, 1),
            "max": round(lag.max_ms, 1),
        },
    }
