"""The treasury: the settlement currency as a claim that treasurers issue against deposits and take back.

A treasurer holds deposits outside the chain, in a bank, and issues as much currency as came in. Every issue and every
redemption names the booking it answers for by a reference, once: a transaction that is sent again, or a booking that
is entered twice, is refused, so the books of the bank and of the chain agree to the wei. Money that genesis gave out
has no deposit behind it and cannot be redeemed.
"""

from typing import Final

from ctt_state.abi import Module
from ctt_state.modules.call import Call
from ctt_state.modules.ctt.module import MODULE_ADDRESSES, NotAdmin, NotCreated
from ctt_state.records import (
    ROLE_TREASURER,
    Booking,
    BookingKind,
    CttConfig,
    Role,
    TreasuryTotals,
)
from ctt_state.units import ZERO_ADDRESS, Address, Height, Wei

TREASURY: Final = Module("Treasury", Address(bytes.fromhex("000000000000000000000000000000000000c702")))

ISSUED_MAX: Final = Wei(2**128 - 1)  # ever, so that all balances together stay far below 256 bits

TreasurerSet = TREASURY.event("TreasurerSet(address indexed treasurer,bool allowed)")
Issued = TREASURY.event(
    "Issued(address indexed treasurer,address indexed to,uint256 amount,bytes32 indexed reference)"
)
Redeemed = TREASURY.event("Redeemed(address indexed treasurer,uint256 amount,bytes32 indexed reference)")

NotTreasurer = TREASURY.error("NotTreasurer(address caller)")
InvalidTreasurer = TREASURY.error("InvalidTreasurer(address treasurer)")
InvalidRecipient = TREASURY.error("InvalidRecipient(address to)")
InvalidAmount = TREASURY.error("InvalidAmount(uint256 amount,uint256 minimum,uint256 maximum)")
InsufficientBalance = TREASURY.error("InsufficientBalance(uint256 balance,uint256 amount)")
ReferenceUsed = TREASURY.error("ReferenceUsed(bytes32 reference,uint64 height)")

NO_TOTALS: Final = TreasuryTotals()
NO_BOOKING: Final = Booking(BookingKind.NONE, ZERO_ADDRESS, Wei(0), Height(0))


@TREASURY.function("setTreasurer(address treasurer,bool allowed)")
def set_treasurer(call: Call, treasurer: Address, allowed: bool) -> None:
    """Who may issue and redeem; the CTT's admin decides.

    Raises: NotCreated, NotAdmin, InvalidTreasurer, in that order.
    """
    config = call.get(CttConfig, CttConfig.key())
    if config is None:
        raise NotCreated()
    if call.sender != config.admin:
        raise NotAdmin(call.sender)
    if treasurer == ZERO_ADDRESS:
        raise InvalidTreasurer(treasurer)
    key = Role.key(ROLE_TREASURER, treasurer)
    if (call.get(Role, key) is not None) != allowed:
        call.put(key, Role() if allowed else None)
    call.emit(TreasurerSet(treasurer, allowed))


@TREASURY.function("issue(address to,uint256 amount,bytes32 reference)")
def issue(call: Call, to: Address, amount: Wei, reference: bytes) -> None:
    """Creates so many wei for `to`, for the deposit of this reference.

    Raises: NotTreasurer, InvalidRecipient, InvalidAmount (0, or above what may still be issued), ReferenceUsed, in
    that order.
    """
    check_treasurer(call)
    if to == ZERO_ADDRESS or to in MODULE_ADDRESSES:
        raise InvalidRecipient(to)
    totals = totals_of(call)
    _check_amount(amount, ISSUED_MAX - totals.issued_wei)
    _book(call, reference, Booking(BookingKind.ISSUED, to, amount, call.block.height))
    call.add_balance(to, amount)
    call.put(TreasuryTotals.key(), totals._replace(issued_wei=Wei(totals.issued_wei + amount)))
    call.emit(Issued(call.sender, to, amount, reference))


@TREASURY.function("redeem(uint256 amount,bytes32 reference)")
def redeem(call: Call, amount: Wei, reference: bytes) -> None:
    """Destroys so many wei of the treasurer's own, which holders have paid in, for the payment of this reference.

    Raises: NotTreasurer, InvalidAmount (0, or above what is outstanding), InsufficientBalance, ReferenceUsed, in that
    order.
    """
    check_treasurer(call)
    totals = totals_of(call)
    _check_amount(amount, totals.outstanding_wei)
    balance = call.balance(call.sender)
    if balance < amount:
        raise InsufficientBalance(balance, amount)
    _book(call, reference, Booking(BookingKind.REDEEMED, call.sender, amount, call.block.height))
    call.add_balance(call.sender, -amount)
    call.put(TreasuryTotals.key(), totals._replace(redeemed_wei=Wei(totals.redeemed_wei + amount)))
    call.emit(Redeemed(call.sender, amount, reference))


@TREASURY.function("isTreasurer(address treasurer) view returns (bool)")
def is_treasurer(call: Call, treasurer: Address) -> bool:
    return call.get(Role, Role.key(ROLE_TREASURER, treasurer)) is not None


@TREASURY.function("totalIssued() view returns (uint256)")
def total_issued(call: Call) -> Wei:
    """Ever, in wei."""
    return totals_of(call).issued_wei


@TREASURY.function("totalRedeemed() view returns (uint256)")
def total_redeemed(call: Call) -> Wei:
    """Ever, in wei."""
    return totals_of(call).redeemed_wei


@TREASURY.function("outstanding() view returns (uint256)")
def outstanding(call: Call) -> Wei:
    """What was issued and not yet redeemed, in wei: the deposits that there must be."""
    return totals_of(call).outstanding_wei


@TREASURY.function(
    "booking(address treasurer,bytes32 reference) view returns "
    "(uint8 kind,address account,uint256 amount,uint64 height)"
)
def booking(call: Call, treasurer: Address, reference: bytes) -> Booking:
    """What a treasurer did for this reference: kind 1 issued to the account, 2 redeemed by it, 0 nothing yet."""
    return call.get(Booking, Booking.key(treasurer, reference)) or NO_BOOKING


def check_treasurer(call: Call) -> None:
    """Raises: NotTreasurer."""
    if call.get(Role, Role.key(ROLE_TREASURER, call.sender)) is None:
        raise NotTreasurer(call.sender)


def totals_of(call: Call) -> TreasuryTotals:
    return call.get(TreasuryTotals, TreasuryTotals.key()) or NO_TOTALS


def _check_amount(amount: int, maximum: int) -> None:
    if not 1 <= amount <= maximum:
        raise InvalidAmount(amount, 1, maximum)


def _book(call: Call, reference: bytes, entry: Booking) -> None:
    """Raises: ReferenceUsed."""
    key = Booking.key(call.sender, reference)
    earlier = call.get(Booking, key)
    if earlier is not None:
        raise ReferenceUsed(reference, earlier.height)
    call.put(key, entry)
