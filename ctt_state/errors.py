"""Why the ledger says no.

Three families stay apart. `InvalidTransaction`: the transaction may not enter a block. `InvalidBlock`: the block may
not enter the chain. `Revert` (in `abi`): the transaction is in its block, but its rule refused and changed nothing.
Each reason is a class of its own and its text is what JSON-RPC shows, so texts are part of the protocol.
"""

from collections.abc import Callable, Sequence


class InvalidTransaction(ValueError):
    """The transaction may not enter a block or the pool."""


class NotTakenNow(InvalidTransaction):
    """The node is in no state to take any transaction; nothing is said of this one."""


class InvalidBlock(ValueError):
    """The block does not follow from its parent's state."""


class InvalidGenesis(ValueError):
    """The genesis document is refused; `faults` holds every fault as (JSON path, text)."""

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {text}" for path, text in faults))
        self.faults = tuple(faults)

    def __reduce__(self) -> tuple[type["InvalidGenesis"], tuple[Sequence[tuple[str, str]]]]:
        return InvalidGenesis, (self.faults,)  # from one process to another


class NonceTooLow(InvalidTransaction):
    """The sender has already used this nonce."""

    def __init__(self, *, next_nonce: int, nonce: int) -> None:
        super().__init__(f"nonce too low: next nonce {next_nonce}, tx nonce {nonce}")


class NonceTooHigh(InvalidTransaction):
    """The sender's earlier nonces are missing."""

    def __init__(self, *, next_nonce: int, nonce: int) -> None:
        super().__init__(f"nonce too high: next nonce {next_nonce}, tx nonce {nonce}")


class InsufficientFunds(InvalidTransaction):
    """The balance does not cover the value and the dearest possible fee (at the chain's minimum gas price)."""

    def __init__(self, *, have_wei: int, want_wei: int) -> None:
        super().__init__(f"insufficient funds for gas * price + value: have {have_wei} want {want_wei}")


class IntrinsicGasTooLow(InvalidTransaction):
    """The gas limit does not even cover the transaction's own bytes."""

    def __init__(self, *, have_gas: int, want_gas: int) -> None:
        super().__init__(f"intrinsic gas too low: have {have_gas} want {want_gas}")


class ExceedsBlockGasLimit(InvalidTransaction):
    """The gas limit is above the block's, so the transaction could never be included."""

    def __init__(self, *, have_gas: int, limit_gas: int) -> None:
        super().__init__(f"exceeds block gas limit: have {have_gas} limit {limit_gas}")


class FeeBelowMinimum(InvalidTransaction):
    """The offered fee is below the chain's minimum gas price."""

    def __init__(self, *, have_wei: int, want_wei: int) -> None:
        super().__init__(
            f"max fee per gas less than block base fee: maxFeePerGas: {have_wei}, baseFee: {want_wei}"
        )


class StatePruned(ValueError):
    """The state at this height is no longer kept."""

    def __init__(self, *, height: int, kept: int) -> None:
        super().__init__(f"state at block {height} is pruned: this node keeps the last {kept} blocks")


class ProofPruned(StatePruned):
    """So much has changed since this height that its state can still be read, but no longer be proven."""

    def __init__(self, *, height: int, records_max: int) -> None:
        ValueError.__init__(
            self,
            f"state at block {height} cannot be proven: more than {records_max:,} records have changed since; "
            "take a newer block",
        )


class StateBuried(StatePruned):
    """So much has changed since this height that its state takes more memory than there is for it."""

    def __init__(self, *, height: int, records_max: int) -> None:
        ValueError.__init__(
            self,
            f"state at block {height} cannot be read: more than {records_max:,} records have changed since; "
            "take a newer block",
        )


class StateUnready(Exception):
    """The state at this height is still to be worked out. `work` does a few ms of that and tells whether it is done;
    then ask again."""

    def __init__(self, work: Callable[[], bool]) -> None:
        super().__init__("the state has to be worked out first")
        self.work = work


class BlockPruned(LookupError):
    """The block, or all of it but its header, lies below what this node began with: a snapshot."""

    def __init__(self, *, height: int, base: int) -> None:
        super().__init__(f"block {height} is pruned: this node has whole blocks from {base + 1} on")
        self.height = height
        self.base = base
