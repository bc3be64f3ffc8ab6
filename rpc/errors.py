"""What JSON-RPC answers when it refuses: a code, a text that clients match, and sometimes data.

Libraries act on these. Code 3 is a revert, -32000 a refusal of the ledger or the pool in geth's words, the -326xx are
JSON-RPC's own. Code -32005 (and -32603) makes libraries try again, so it is only for what may pass later.
"""

import math
from typing import Final

from ctt_state.abi import Revert
from rpc.jsontext import Json

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
REFUSED: Final = -32000
TRY_LATER: Final = -32005
EXECUTION_REVERTED: Final = 3
NOT_YET_INCLUDED: Final = 4  # EIP-7966


class RpcError(Exception):
    """The answer to a request is this error. `data` None leaves the member out. `outcome` is its name in statistics."""

    code = INTERNAL_ERROR
    outcome = "internal_error"

    def __init__(self, message: str, data: Json = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data

    def to_json(self) -> dict[str, Json]:
        """The reply's `error` member."""
        answer: dict[str, Json] = {"code": self.code, "message": self.message}
        if self.data is not None:
            answer["data"] = self.data
        return answer


class ParseError(RpcError):
    """The body is not JSON, or is more of it than is read."""

    code = PARSE_ERROR
    outcome = "malformed"


class InvalidRequest(RpcError):
    """The JSON is not a JSON-RPC request."""

    code = INVALID_REQUEST
    outcome = "malformed"


class MethodNotFound(RpcError):
    """There is no such method, or not at this door."""

    code = METHOD_NOT_FOUND
    outcome = "not_found"

    def __init__(self, method: str) -> None:
        super().__init__(f"the method {method} does not exist/is not available")


class NotSupported(RpcError):
    """The method exists, but not what this call of it asks for."""

    code = METHOD_NOT_FOUND
    outcome = "not_supported"


class InvalidParams(RpcError):
    """A parameter is missing, malformed or out of its range; the text says which one and why."""

    code = INVALID_PARAMS
    outcome = "invalid_params"


class Refused(RpcError):
    """The ledger or the pool says no, and will say so again."""

    code = REFUSED
    outcome = "refused"


class TryLater(RpcError):
    """Something is full or too busy now."""

    code = TRY_LATER
    outcome = "try_later"


class RateLimited(TryLater):
    """The client has used up its quota of so many cost units a second."""

    outcome = "rate_limited"

    def __init__(self, per_s: int, wait_s: float) -> None:
        wait_ms = math.ceil(wait_s * 1_000)
        text = f"rate limit {per_s}/s for this client; retry in {wait_ms} ms"
        super().__init__(text, {"retry_after_ms": wait_ms})


class ExecutionReverted(RpcError):
    """The call's rule refused. The reason is in the message too, as not every library decodes the data."""

    code = EXECUTION_REVERTED
    outcome = "reverted"

    def __init__(self, revert: Revert) -> None:
        reason = f": {revert.reason}" if revert.reason else ""
        super().__init__(f"execution reverted{reason}", "0x" + revert.data.hex())


class NotYetIncluded(RpcError):
    """The transaction is in the pool, but in no block within the time asked for; `data` is its hash."""

    code = NOT_YET_INCLUDED
    outcome = "not_yet_included"

    def __init__(self, transaction_hash: str, timeout_s: float) -> None:
        text = f"the transaction was added to the pool but not included within {timeout_s:g} s"
        super().__init__(text, transaction_hash)


class InternalError(RpcError):
    """Our own mistake. The client learns an incident's number, the log the rest."""

    code = INTERNAL_ERROR

    def __init__(self, incident: str) -> None:
        super().__init__(f"internal error, incident {incident}")
