"""What an operator asks about the node itself, rather than about its chain."""

from typing import Final

from rpc import schemas
from rpc.chain import Times
from rpc.door import Caller
from rpc.jsontext import Json
from rpc.methods import Registry

NODE_METHODS: Final = Registry()


@NODE_METHODS.method("ctt_nodeStatus", result=schemas.NODE_STATUS)
def node_status(caller: Caller) -> Json:
    """The node's version; how late its event loop was in the last minute, which is what load may cost consensus; and
    how long blocks took from their proposal, made or received here, to their certificate."""
    chain = caller.chain
    lag, finality = chain.loop_lag(), chain.finality()
    return {
        "clientVersion": chain.client_version,
        "loopLagMs": {"beats": lag.count, **_quantiles(lag)},
        "finalityMs": {"blocks": finality.count, **_quantiles(finality)},
    }


def _quantiles(times: Times) -> dict[str, Json]:
    return {
        "p50": round(times.p50_ms, 1),
        "p99": round(times.p99_ms, 1),
        "max": round(times.max_ms, 1),
    }
