"""The ledger's records: each is one leaf of the state tree, with its key and its canonical bytes.

A record is a NamedTuple (decisions/0002): cheap to build and to copy with a change, and never changed in place. Its
key is its kind byte and what names it; its bytes are the msgpack array of its fields, in order, with integers that
may pass 64 bits as minimal big-endian bytes. The same record always has the same bytes.

| kind | record | named by |
| --- | --- | --- |
| 01 | Account | address |
| 02 | CttConfig | nothing: there is one |
| 03 | CttSupply | nothing: there is one |
| 04 | Token | token id |
| 05 | Prosumer | address |
| 06 | ShelfPage | owner, page number |
| 07 | Approval | owner, operator |
| 08 | Meter | address |
| 09 | Reading | meter, prosumer |
| 0a | Role | role, address |
| 0b | EpochSet | epoch |
| 0c | Governance | nothing: there is one |
| 0d | Proposal | number |
| 0e | Offence | number |
| 0f | Barred | consensus key |
| 10 | MarketTariff | nothing: there is one |
| 11 | MarketBook | nothing: there is one |
| 12 | BookPage | page number |
| 13 | Standing | address |
| 14 | Order | order id |
| 15 | Auction | auction number modulo 4,096 |
| 16 | Mandate | owner, platform |
| 18 | TreasuryTotals | nothing: there is one |
| 19 | Booking | treasurer, reference |
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple, Protocol, Self, TypeVar

import msgpack

from ctt_state.origin import NO_ORIGIN, Origin, add
from ctt_state.units import PRICE_MAX, ZERO_ADDRESS, Address, Height, Ms, TokenId, Watt, Wei, Wh
from ctt_state.validators import Member, ValidatorSet

PAGE_TOKENS: Final = 64
PAGE_ORDERS: Final = 64
AUCTIONS_KEPT: Final = 4_096  # results in the state: 42 days of the usual auctions

# One packer for all: it calls no Python code, so no other thread can come in between.
_pack: Final[Callable[[object], bytes]] = msgpack.Packer().pack
_unpack: Final = msgpack.unpackb


class Record(Protocol):
    """What every record can do."""

    def encode(self) -> bytes: ...
    @classmethod
    def decode(cls, data: bytes) -> Self: ...


R = TypeVar("R", bound=Record)


def _wide(number: int) -> bytes:
    """An integer of up to 256 bits as minimal big-endian bytes; zero is empty."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _narrow(data: bytes) -> int:
    return int.from_bytes(data, "big")


class Account(NamedTuple):
    """An address with a nonce and a balance in wei."""

    nonce: int = 0
    balance: Wei = Wei(0)

    @staticmethod
    def key(address: Address) -> bytes:
        return b"\x01" + address

    def encode(self) -> bytes:
        return _pack((self.nonce, _wide(self.balance)))

    @classmethod
    def decode(cls, data: bytes) -> "Account":
        nonce, balance = _unpack(data)
        return cls(nonce, Wei(_narrow(balance)))


class CttConfig(NamedTuple):
    """What the admin decides about the CTT. It exists once the CTT is created."""

    name: str
    symbol: str
    admin: Address
    next_admin: Address  # named by updateAdmin, zero when none is
    max_supply: int  # tokens (MET)
    capability_wh: Wh  # of one token (CET)
    highest_capability_wh: Wh  # ever set: no token holds more
    empty_price_wei: Wei

    @staticmethod
    def key() -> bytes:
        return b"\x02"

    def encode(self) -> bytes:
        return _pack((*self[:7], _wide(self.empty_price_wei)))

    @classmethod
    def decode(cls, data: bytes) -> "CttConfig":
        name, symbol, admin, next_admin, supply, capability, highest, price = _unpack(data)
        return cls(name, symbol, admin, next_admin, supply, capability, highest, Wei(_narrow(price)))


class CttSupply(NamedTuple):
    """How many tokens exist and the energy they hold, all owners together."""

    last_token_id: int = 0
    energy_wh: Wh = Wh(0)  # in all tokens now: genesis + refilled - covered
    refilled_wh: Wh = Wh(0)  # ever stored, the energy of genesis included
    covered_wh: Wh = Wh(0)  # ever drained
    origin: Origin = NO_ORIGIN  # of the energy in all tokens
    retired: Origin = NO_ORIGIN  # of the energy ever drained

    @staticmethod
    def key() -> bytes:
        return b"\x03"

    def encode(self) -> bytes:
        # What was ever stored sums over all owners, each of whom may reach 64 bits.
        totals = _wide(self.refilled_wh), _wide(self.covered_wh)
        return _pack((*self[:2], *totals, self.origin, tuple(map(_wide, self.retired))))

    @classmethod
    def decode(cls, data: bytes) -> "CttSupply":
        last_token_id, energy, refilled, covered, origin, retired = _unpack(data, use_list=False)
        totals = Wh(_narrow(refilled)), Wh(_narrow(covered))
        return cls(last_token_id, energy, *totals, origin, tuple(map(_narrow, retired)))


class Token(NamedTuple):
    """A rechargeable token. `slot` is its place in its owner's shelf; prices are those last set by an owner."""

    owner: Address
    slot: int
    energy_wh: Wh = Wh(0)
    on_sale: bool = False
    token_price_wei: Wei = Wei(0)
    energy_price_wei_per_wh: Wei = Wei(0)
    approved: Address = ZERO_ADDRESS
    permit_nonce: int = 0
    origin: Origin = NO_ORIGIN  # of its energy

    @staticmethod
    def key(token_id: TokenId) -> bytes:
        return b"\x04" + token_id.to_bytes(8, "big")

    def encode(self) -> bytes:
        return _pack(
            (
                self.owner,
                self.slot,
                self.energy_wh,
                self.on_sale,
                _wide(self.token_price_wei),
                _wide(self.energy_price_wei_per_wh),
                self.approved if self.approved != ZERO_ADDRESS else b"",
                self.permit_nonce,
                self.origin,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> "Token":
        owner, slot, energy, on_sale, token_price, energy_price, approved, nonce, origin = _unpack(
            data, use_list=False
        )
        prices = Wei(_narrow(token_price)), Wei(_narrow(energy_price))
        return cls(owner, slot, energy, on_sale, *prices, approved or ZERO_ADDRESS, nonce, origin)

    def with_energy(self, energy_wh: Wh, origin: Origin) -> "Token":
        """Every reading makes one: two thirds of the time of `_replace`, as of the other two below."""
        return Token._make((*self[:2], energy_wh, *self[3:8], origin))

    @property
    def selling_price_wei(self) -> Wei:
        """Token price + energy x energy price."""
        return Wei(self.token_price_wei + self.energy_wh * self.energy_price_wei_per_wh)


class Prosumer(NamedTuple):
    """An owner of tokens: its meter, the four regions of its shelf, and its totals in Wh.

    The shelf's slots are numbered from 0: first `full` tokens, then `partial`, `empty` and `on_sale` ones.
    `capability_wh` is the capability by which `full` was last told from `partial` (see `modules/ctt/shelf.py`).
    """

    meter: Address = ZERO_ADDRESS
    confirmed: bool = False
    full: int = 0
    partial: int = 0
    empty: int = 0
    on_sale: int = 0
    capability_wh: Wh = Wh(0)
    full_wh: Wh = Wh(0)  # energy of the full tokens
    partial_wh: Wh = Wh(0)  # energy of the partly charged tokens
    produced_wh: Wh = Wh(0)  # measured production, stored or not
    stored_wh: Wh = Wh(0)  # of it stored in tokens; the rest went to the grid
    consumed_wh: Wh = Wh(0)  # measured consumption, covered or not
    covered_wh: Wh = Wh(0)  # of it covered by tokens; the rest the operator bills
    retired: Origin = NO_ORIGIN  # of what was covered

    @staticmethod
    def key(address: Address) -> bytes:
        return b"\x05" + address

    def encode(self) -> bytes:
        meter = self.meter if self.meter != ZERO_ADDRESS else b""
        return _pack((meter, *self[1:]))

    @classmethod
    def decode(cls, data: bytes) -> "Prosumer":
        meter, *rest = _unpack(data, use_list=False)
        return cls(meter or ZERO_ADDRESS, *rest)

    def with_charges(self, full: int, partial: int, empty: int, full_wh: Wh, partial_wh: Wh) -> "Prosumer":
        """With its tokens that are not on sale charged like this."""
        charges = full, partial, empty, *self[5:7], full_wh, partial_wh
        return Prosumer._make((*self[:2], *charges, *self[9:]))

    def with_production(self, amount: Wh, stored: Wh) -> "Prosumer":
        """With so much more measured, and of it stored."""
        totals = Wh(self.produced_wh + amount), Wh(self.stored_wh + stored)
        return Prosumer._make((*self[:9], *totals, *self[11:]))

    def with_consumption(self, amount: Wh, covered: Wh, origin: Origin) -> "Prosumer":
        """With so much more measured, and of it covered by energy of this origin."""
        totals = Wh(self.consumed_wh + amount), Wh(self.covered_wh + covered)
        return Prosumer._make((*self[:11], *totals, add(self.retired, origin)))

    @property
    def tokens(self) -> int:
        """How many tokens it owns, those on sale included."""
        return self.full + self.partial + self.empty + self.on_sale


class ShelfPage(NamedTuple):
    """The ids in 64 consecutive slots of an owner's shelf; only its last page is shorter."""

    token_ids: tuple[int, ...]

    @staticmethod
    def key(owner: Address, page: int) -> bytes:
        return b"\x06" + owner + page.to_bytes(8, "big")

    def encode(self) -> bytes:
        return _pack(self.token_ids)

    @classmethod
    def decode(cls, data: bytes) -> "ShelfPage":
        return cls(_unpack(data, use_list=False))


class Approval(NamedTuple):
    """`operator` may move every token of `owner` (ERC-721 setApprovalForAll). It exists while it holds."""

    @staticmethod
    def key(owner: Address, operator: Address) -> bytes:
        return b"\x07" + owner + operator

    def encode(self) -> bytes:
        return b"\x90"

    @classmethod
    def decode(cls, data: bytes) -> "Approval":
        return cls()


class Meter(NamedTuple):
    """A smart meter an operator has certified. `prosumer` is the one that it has confirmed (never a concentrator's)."""

    operator: Address
    source: int  # 0 none, 1 solar, 2 wind, 3 hydro, 4 biomass, 5 other
    max_power_w: Watt  # 0: no plausibility limit
    concentrator: bool
    certified: bool
    prosumer: Address = ZERO_ADDRESS

    @staticmethod
    def key(address: Address) -> bytes:
        return b"\x08" + address

    def encode(self) -> bytes:
        return _pack(self)

    @classmethod
    def decode(cls, data: bytes) -> "Meter":
        return cls(*_unpack(data))


class Reading(NamedTuple):
    """What a meter last said of a prosumer: its registers, and up to when its amounts have been counted."""

    time_ms: Ms = Ms(0)  # of the registers; 0: no baseline yet
    import_wh: Wh = Wh(0)
    export_wh: Wh = Wh(0)
    refilled_ms: Ms = Ms(0)  # block time of the last refill, or of the confirmation
    consumed_ms: Ms = Ms(0)  # block time of the last consume, or of the confirmation

    @staticmethod
    def key(meter: Address, prosumer: Address) -> bytes:
        return b"\x09" + meter + prosumer

    def encode(self) -> bytes:
        return _pack(self)

    @classmethod
    def decode(cls, data: bytes) -> "Reading":
        return cls(*_unpack(data))


ROLE_OPERATOR: Final = 1  # certifies and revokes meters
ROLE_TREASURER: Final = 2  # issues and redeems the settlement currency


class Role(NamedTuple):
    """An address holds a role. It exists while it holds."""

    @staticmethod
    def key(role: int, address: Address) -> bytes:
        return bytes((0x0A, role)) + address

    def encode(self) -> bytes:
        return b"\x90"

    @classmethod
    def decode(cls, data: bytes) -> "Role":
        return cls()


class EpochSet(NamedTuple):
    """The validators of an epoch, in the order of the set. What headers say of the set is SHA-256 of these bytes, and
    so is what the state tree says of the record."""

    members: tuple[Member, ...]

    @staticmethod
    def key(epoch: int) -> bytes:
        return b"\x0b" + epoch.to_bytes(8, "big")

    def encode(self) -> bytes:
        return _pack(self.members)

    @classmethod
    def decode(cls, data: bytes) -> "EpochSet":
        return cls(tuple([Member(*member) for member in _unpack(data, use_list=False)]))

    @property
    def validators(self) -> ValidatorSet:
        return ValidatorSet(self.members)


class Governance(NamedTuple):
    """The counters of the authority module, and which proposals are open: number and proposer, lowest first."""

    last_proposal: int = 0
    last_offence: int = 0
    open: tuple[tuple[int, Address], ...] = ()

    @staticmethod
    def key() -> bytes:
        return b"\x0c"

    def encode(self) -> bytes:
        return _pack(self)

    @classmethod
    def decode(cls, data: bytes) -> "Governance":
        return cls(*_unpack(data, use_list=False))


class Change(IntEnum):
    """What a proposal does to the set of validators."""

    ADD = 1
    ROTATE = 2
    REMOVE = 3


class Outcome(IntEnum):
    """What became of a proposal. A void one can no longer be applied: the set or the law has changed since."""

    OPEN = 0
    WITHDRAWN = 1
    EXPIRED = 2
    APPLIED = 3
    VOID = 4


class Proposal(NamedTuple):
    """A change of the set that validators vote on. Heights are 0 for what has not happened."""

    change: Change
    validator: Address
    consensus_key: bytes  # compressed, 33 bytes; empty for a removal
    proposer: Address
    proposed_height: Height
    voters: tuple[Address, ...] = ()
    carried_height: Height = Height(0)
    ready_height: Height = Height(0)  # that the new key has last signed
    outcome: Outcome = Outcome.OPEN
    closed_height: Height = Height(0)

    @staticmethod
    def key(number: int) -> bytes:
        return b"\x0d" + number.to_bytes(8, "big")

    def encode(self) -> bytes:
        return _pack(self)

    @classmethod
    def decode(cls, data: bytes) -> "Proposal":
        proposal = cls(*_unpack(data, use_list=False))
        return proposal._replace(change=Change(proposal.change), outcome=Outcome(proposal.outcome))


class Offence(NamedTuple):
    """A validator's two contradicting votes, told by the block of this height."""

    validator: Address
    consensus_key: bytes
    epoch: int
    view: int
    height: Height

    @staticmethod
    def key(number: int) -> bytes:
        return b"\x0e" + number.to_bytes(8, "big")

    def encode(self) -> bytes:
        return _pack(self)

    @classmethod
    def decode(cls, data: bytes) -> "Offence":
        return cls(*_unpack(data))


class Barred(NamedTuple):
    """A consensus key that can never be in a set again, for the offence of this number."""

    offence: int

    @staticmethod
    def key(consensus_key: bytes) -> bytes:
        return b"\x0f" + consensus_key

    def encode(self) -> bytes:
        return _pack(self)

    @classmethod
    def decode(cls, data: bytes) -> "Barred":
        return cls(*_unpack(data))


class MarketTariff(NamedTuple):
    """What the operator's tariff makes of the market: prices in wei per Wh, and who gets the grid fee."""

    floor_wei_per_wh: Wei = Wei(0)  # what the operator pays for energy fed in
    ceiling_wei_per_wh: Wei = Wei(PRICE_MAX)  # what it asks for energy at retail
    grid_fee_wei_per_wh: Wei = Wei(0)  # the buyer pays it on top of the price
    grid_operator: Address = ZERO_ADDRESS

    @staticmethod
    def key() -> bytes:
        return b"\x10"

    def encode(self) -> bytes:
        return _pack((*map(_wide, self[:3]), self.grid_operator))

    @classmethod
    def decode(cls, data: bytes) -> "MarketTariff":
        *prices, grid_operator = _unpack(data)
        floor, ceiling, fee = (Wei(_narrow(price)) for price in prices)
        return cls(floor, ceiling, fee, grid_operator)


class MarketBook(NamedTuple):
    """How many orders there ever were and how many stand: these are in the slots from 0 on."""

    last_order_id: int = 0
    standing: int = 0

    @staticmethod
    def key() -> bytes:
        return b"\x11"

    def encode(self) -> bytes:
        return _pack(self)

    @classmethod
    def decode(cls, data: bytes) -> "MarketBook":
        return cls(*_unpack(data))


class BookPage(NamedTuple):
    """The ids in 64 consecutive slots of the order book; only its last page is shorter."""

    order_ids: tuple[int, ...]

    @staticmethod
    def key(page: int) -> bytes:
        return b"\x12" + page.to_bytes(8, "big")

    def encode(self) -> bytes:
        return _pack(self.order_ids)

    @classmethod
    def decode(cls, data: bytes) -> "BookPage":
        return cls(_unpack(data, use_list=False))


class Standing(NamedTuple):
    """The ids of an account's standing orders, 0 for none. It exists while one of them does."""

    bid: int = 0
    ask: int = 0

    @staticmethod
    def key(owner: Address) -> bytes:
        return b"\x13" + owner

    def encode(self) -> bytes:
        return _pack(self)

    @classmethod
    def decode(cls, data: bytes) -> "Standing":
        return cls(*_unpack(data))


class Order(NamedTuple):
    """A standing intent to buy or sell. It is of the one who placed it for its owner: the owner, or a platform with
    a mandate. `sources` and `partners` hold prices of their own, beside the general one, in the owner's order."""

    owner: Address
    is_bid: bool
    energy_wh: Wh  # still to be traded
    limit_wei_per_wh: Wei  # of a bid the most, of an ask the least
    expiry_auction: int  # the last in which it counts
    slot: int  # in the book
    placer: Address
    sources: tuple[tuple[int, Wei], ...] = ()  # a bid's maximum for energy of this source
    partners: tuple[tuple[Address, Wei], ...] = ()  # a bid's maximum from, an ask's price for this account

    @staticmethod
    def key(order_id: int) -> bytes:
        return b"\x14" + order_id.to_bytes(8, "big")

    def encode(self) -> bytes:
        wishes = [[(name, _wide(price)) for name, price in prices] for prices in self[7:]]
        placer = self.placer if self.placer != self.owner else b""
        return _pack(
            (*self[:3], _wide(self.limit_wei_per_wh), self.expiry_auction, self.slot, placer, *wishes)
        )

    @classmethod
    def decode(cls, data: bytes) -> "Order":
        owner, is_bid, energy, limit, expiry, slot, placer, *wishes = _unpack(data)
        sources, partners = (
            tuple([(name, Wei(_narrow(price))) for name, price in prices]) for prices in wishes
        )
        limit = Wei(_narrow(limit))
        return cls(owner, is_bid, energy, limit, expiry, slot, placer or owner, sources, partners)


class Auction(NamedTuple):
    """What an auction came to. The price is that of the energy that was not nominated, 0 when there was none."""

    number: int
    height: Height  # of the block that cleared it
    price_wei_per_wh: Wei
    energy_wh: Wh  # traded, at that price and by nomination
    bids: int  # orders that stood
    asks: int

    @staticmethod
    def key(number: int) -> bytes:
        return b"\x15" + (number % AUCTIONS_KEPT).to_bytes(8, "big")

    def encode(self) -> bytes:
        # The energy sums over all orders, each of which may reach 64 bits.
        number, height, price, energy, *orders = self
        return _pack((number, height, _wide(price), _wide(energy), *orders))

    @classmethod
    def decode(cls, data: bytes) -> "Auction":
        number, height, price, energy, *orders = _unpack(data)
        return cls(number, height, Wei(_narrow(price)), Wh(_narrow(energy)), *orders)


class Mandate(NamedTuple):
    """What a platform may still do in the market for an owner. It exists until it is revoked."""

    energy_wh: Wh  # bought and sold
    spend_wei: Wei  # for energy bought, grid fee included
    buy_limit_wei_per_wh: Wei  # no bid above
    sell_limit_wei_per_wh: Wei  # no ask below
    expiry_auction: int  # the last in which its orders count

    @staticmethod
    def key(owner: Address, platform: Address) -> bytes:
        return b"\x16" + owner + platform

    def encode(self) -> bytes:
        return _pack((self.energy_wh, *map(_wide, self[1:4]), self.expiry_auction))

    @classmethod
    def decode(cls, data: bytes) -> "Mandate":
        energy, *amounts, expiry = _unpack(data)
        spend, buy, sell = (Wei(_narrow(amount)) for amount in amounts)
        return cls(energy, spend, buy, sell, expiry)


class TreasuryTotals(NamedTuple):
    """What treasurers ever issued and redeemed, in wei."""

    issued_wei: Wei = Wei(0)
    redeemed_wei: Wei = Wei(0)

    @staticmethod
    def key() -> bytes:
        return b"\x18"

    def encode(self) -> bytes:
        return _pack((_wide(self.issued_wei), _wide(self.redeemed_wei)))

    @classmethod
    def decode(cls, data: bytes) -> "TreasuryTotals":
        issued, redeemed = _unpack(data)
        return cls(Wei(_narrow(issued)), Wei(_narrow(redeemed)))

    @property
    def outstanding_wei(self) -> Wei:
        return Wei(self.issued_wei - self.redeemed_wei)


class BookingKind(IntEnum):
    """What a treasurer did."""

    NONE = 0  # nothing: no record says so
    ISSUED = 1
    REDEEMED = 2


class Booking(NamedTuple):
    """What a treasurer did for one reference: for whom, how much, in which block."""

    kind: BookingKind
    account: Address
    amount_wei: Wei
    height: Height

    @staticmethod
    def key(treasurer: Address, reference: bytes) -> bytes:
        return b"\x19" + treasurer + reference

    def encode(self) -> bytes:
        return _pack((self.kind, self.account, _wide(self.amount_wei), self.height))

    @classmethod
    def decode(cls, data: bytes) -> "Booking":
        kind, account, amount, height = _unpack(data)
        return cls(BookingKind(kind), account, Wei(_narrow(amount)), Height(height))


_KINDS: Final[dict[int, type[Record]]] = {
    0x01: Account,
    0x02: CttConfig,
    0x03: CttSupply,
    0x04: Token,
    0x05: Prosumer,
    0x06: ShelfPage,
    0x07: Approval,
    0x08: Meter,
    0x09: Reading,
    0x0A: Role,
    0x0B: EpochSet,
    0x0C: Governance,
    0x0D: Proposal,
    0x0E: Offence,
    0x0F: Barred,
    0x10: MarketTariff,
    0x11: MarketBook,
    0x12: BookPage,
    0x13: Standing,
    0x14: Order,
    0x15: Auction,
    0x16: Mandate,
    0x18: TreasuryTotals,
    0x19: Booking,
}


def decode_record(key: bytes, data: bytes) -> Record:
    """The record of this key. Raises: KeyError for a kind that does not exist."""
    return _KINDS[key[0]].decode(data)
