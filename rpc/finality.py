"""What makes a block final, as JSON: its header, and a certificate of it or of a descendant."""

from ctt_state.units import hex_of
from ctt_state.validators import ValidatorSet
from ctt_state.votes import Certificate
from rpc.chain import Chain
from rpc.jsontext import Json


def finality_of(
    chain: Chain, height: int, certified: int, data: bytes | None, descendants: list[Json]
) -> dict[str, Json]:
    """`data` is the certificate of block `certified`, to which the headers `descendants` lead. Raises: BlockPruned."""
    header = chain.header(height)
    return {
        "height": height,
        "blockHash": hex_of(header.hash),
        "epoch": header.epoch,
        "header": hex_of(header.encode()),
        "certificate": None if data is None else hex_of(data),
        "certifiedHeight": None if data is None else certified,
        "signers": None if data is None else _signers(chain.validators(header.epoch), data),
        "descendants": descendants,
    }


def own_finality_of(chain: Chain, height: int) -> dict[str, Json] | None:
    """Of a block that has a certificate of its own; None of any other. Raises: BlockPruned."""
    certified, data = chain.certificate(height) or (height, None)
    return None if data is None or certified != height else finality_of(chain, height, height, data, [])


def _signers(members: ValidatorSet | None, certificate: bytes) -> Json:
    """Their addresses; null when this node does not keep the epoch's set."""
    if members is None:
        return None
    return [hex_of(members.members[at].address) for at, _ in Certificate.decode(certificate).signatures]
