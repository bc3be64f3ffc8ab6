"""A small chain with a market: what `tests.world` is, with blocks that begin with the clearing that is due."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ctt_state.block import Log, Receipt
from ctt_state.modules.call import MarketRules
from ctt_state.modules.ctt import CTT
from ctt_state.modules.market import MARKET
from ctt_state.records import Account, MarketTariff
from ctt_state.transition import apply_due, due_transaction
from ctt_state.units import Address, Wei
from tests.world import OPERATOR, WEALTH_WEI, World, check_invariants

AUCTION_BLOCKS: Final = 3
FOREVER: Final = 2**64 - 1  # an auction that never comes
BID: Final = "bid(uint256,uint256,uint64)"
ASK: Final = "ask(uint256,uint256,uint64)"


class MarketWorld(World):
    """`send`, `call` and their kin go to the market."""

    def __init__(
        self,
        *,
        auction_blocks: int = AUCTION_BLOCKS,
        orders_max: int = 100,
        tokens_max: int = 200,
        floor: int = 0,
        ceiling: int = 2**128 - 1,
        grid_fee: int = 0,
        max_supply: int = 1_000,
        capability_wh: int = 10_000,
    ) -> None:
        super().__init__(max_supply=max_supply, capability_wh=capability_wh)
        rules = MarketRules(auction_blocks, orders_max, tokens_max)
        self.chain = dataclasses.replace(self.chain, market=rules)
        self.put(MarketTariff.key(), MarketTariff(Wei(floor), Wei(ceiling), Wei(grid_fee), OPERATOR))
        self.module = MARKET

    def bid(self, owner: Address, energy: int, price: int, expiry: int = FOREVER) -> int:
        order_id: int = self.done(owner, BID, energy, price, expiry)
        return order_id

    def ask(self, owner: Address, energy: int, price: int, expiry: int = FOREVER) -> int:
        order_id: int = self.done(owner, ASK, energy, price, expiry)
        return order_id

    @contextmanager
    def at_ctt(self) -> Iterator[None]:
        """Within it `send`, `call` and their kin go to the CTT."""
        self.module = CTT
        try:
            yield
        finally:
            self.module = MARKET

    def ctt(self, sender: Address, signature: str, *arguments: Any, value: int = 0) -> Any:
        """A call of the CTT that must succeed."""
        with self.at_ctt():
            return self.done(sender, signature, *arguments, value=value)

    def put_account(self, owner: Address, wealth: int = WEALTH_WEI) -> None:
        """Gives money to somebody who has none."""
        self.put(Account.key(owner), Account(0, Wei(wealth)))
        self.issued_wei = Wei(self.issued_wei + wealth)

    def put_balance(self, owner: Address, wei: int) -> None:
        """Gives the rest away, or what is missing."""
        account: Account = self.get(Account.key(owner))
        self.issued_wei = Wei(self.issued_wei - account.balance + wei)
        self.put(Account.key(owner), account._replace(balance=Wei(wei)))

    def settle_in(self, owner: Address, tokens: int, energy_wh: int, source: int = 1) -> None:
        """Gives the owner tokens and charges them, by a meter of this source when there is any energy."""
        with self.at_ctt():
            self.give_tokens(owner, tokens)
            if energy_wh:
                meter = self.give_meter(owner)
                self.done(OPERATOR, "certifyMeter(address,uint8,uint64,bool)", meter, source, 0, False)
                assert self.charge(owner, energy_wh) == energy_wh

    def charge_at_ctt(self, owner: Address, energy_wh: int) -> int:
        """`charge` from the market's world."""
        with self.at_ctt():
            return self.charge(owner, energy_wh)

    def next_block(self) -> Receipt | None:
        """Starts the next block with what is due in it; gives the receipt of that."""
        self.pass_ms(333)
        due = due_transaction(self.overlay.lookup, self.block, self.chain)
        return None if due is None else apply_due(self.overlay, due, self.block, self.chain)

    def clear(self) -> tuple[Log, ...]:
        """Goes on to the block that clears the present auction; gives what the clearing told."""
        assert self.chain.market is not None
        blocks = self.chain.market.auction_blocks
        while self.block.height % blocks:
            assert self.next_block() is None
        receipt = self.next_block()
        assert receipt is not None and receipt.succeeded
        return receipt.logs

    def energy(self, owner: Address) -> int:
        """The Wh in the owner's tokens that are not on sale."""
        with self.at_ctt():
            stored: int = self.call("energyOf(address)", owner)[0]
        return stored

    def check(self) -> None:
        """Recomputes what no history may break. Raises: AssertionError."""
        with self.at_ctt():
            check_invariants(self)
