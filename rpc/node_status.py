"""What an operator asks about the node itself, rather than about its chain."""

from typing import Final

from ctt_state.units import hex_of
from rpc import schemas
from rpc.access import Role
from rpc.chain import Chain, Times
from rpc.door import Caller
from rpc.jsontext import Json
from rpc.methods import Registry

NODE_METHODS: Final = Registry()


@NODE_METHODS.method("ctt_nodeStatus", result=schemas.NODE_STATUS)
def node_status(caller: Caller) -> Json:
    """The node's version; `trouble`, why clients had better ask another one now (as GET /ready has it), or null; how
    late its event loop was in the last minute, which is what load may cost consensus; how long blocks took from their
    proposal, made or received here, to their certificate; the validators as this node hears them; and to operators the
    room on its disk."""
    chain = caller.chain
    lag, finality = chain.loop_lag(), chain.finality()
    return {
        "clientVersion": chain.client_version,
        "trouble": chain.trouble(),
        "loopLagMs": {"beats": lag.count, **_quantiles(lag)},
        "finalityMs": {"blocks": finality.count, **_quantiles(finality)},
        "validators": [
            {
                "address": hex_of(each.address),
                "name": each.name,
                "heardMs": each.heard_ms,
                "votesMissed": each.votes_missed,
            }
            for each in chain.signers()
        ],
        "storage": _storage(chain) if caller.role >= Role.OPERATOR else None,
    }


def _storage(chain: Chain) -> Json:
    free, size = chain.room_bytes()
    return {"freeBytes": free, "sizeBytes": size}


def _quantiles(times: Times) -> dict[str, Json]:
    return {
        "p50": round(times.p50_ms, 1),
        "p99": round(times.p99_ms, 1),
        "max": round(times.max_ms, 1),
    }
