"""The ledger's invariants, checked over all records: what no history of transactions may break.

Pure: records in, faults out. `ctt verify` runs it over a data directory, the property tests after each step.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ctt_state.modules.ctt.shelf import Region, region_of
from ctt_state.modules.market.orders import crosses
from ctt_state.origin import NO_ORIGIN, SOURCE_MAX, Origin, add
from ctt_state.records import (
    PAGE_ORDERS,
    PAGE_TOKENS,
    Account,
    Auction,
    Barred,
    Booking,
    BookingKind,
    BookPage,
    CttConfig,
    CttSupply,
    EpochSet,
    Governance,
    Mandate,
    MarketBook,
    MarketTariff,
    Meter,
    Offence,
    Order,
    Outcome,
    Proposal,
    Prosumer,
    Record,
    ShelfPage,
    Standing,
    Token,
    TreasuryTotals,
)
from ctt_state.succession import changes_max
from ctt_state.units import UINT64_MAX, ZERO_ADDRESS, Address, Wei
from ctt_state.validators import VALIDATORS_MAX, Member


class _Books(NamedTuple):
    """All records, by kind and by what names them."""

    accounts: dict[Address, Account]
    tokens: dict[int, Token]
    prosumers: dict[Address, Prosumer]
    pages: dict[tuple[Address, int], ShelfPage]
    meters: dict[Address, Meter]
    sets: dict[int, EpochSet]
    proposals: dict[int, Proposal]
    offences: dict[int, Offence]
    barred: dict[bytes, Barred]
    bookings: dict[bytes, Booking]
    orders: dict[int, Order]
    book_pages: dict[int, BookPage]
    standing: dict[Address, Standing]
    auctions: dict[bytes, Auction]
    mandates: dict[bytes, Mandate]  # by key


def audit(records: Iterable[tuple[bytes, Record]], issued_wei: Wei) -> Iterator[str]:
    """Every fault, in words that name the record. `issued_wei`: what genesis gave out."""
    books = _Books({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {})
    config: CttConfig | None = None
    supply, governance, totals = CttSupply(), Governance(), TreasuryTotals()
    tariff, order_book = MarketTariff(), MarketBook()
    for key, record in records:
        match record:
            case Account():
                books.accounts[Address(key[1:])] = record
            case Token():
                books.tokens[int.from_bytes(key[1:], "big")] = record
            case Prosumer():
                books.prosumers[Address(key[1:])] = record
            case ShelfPage():
                books.pages[Address(key[1:21]), int.from_bytes(key[21:], "big")] = record
            case Meter():
                books.meters[Address(key[1:])] = record
            case CttConfig():
                config = record
            case CttSupply():
                supply = record
            case EpochSet():
                books.sets[int.from_bytes(key[1:], "big")] = record
            case Proposal():
                books.proposals[int.from_bytes(key[1:], "big")] = record
            case Offence():
                books.offences[int.from_bytes(key[1:], "big")] = record
            case Barred():
                books.barred[key[1:]] = record
            case Governance():
                governance = record
            case MarketTariff():
                tariff = record
            case MarketBook():
                order_book = record
            case Order():
                books.orders[int.from_bytes(key[1:], "big")] = record
            case BookPage():
                books.book_pages[int.from_bytes(key[1:], "big")] = record
            case Standing():
                books.standing[Address(key[1:])] = record
            case Auction():
                books.auctions[key] = record
            case Mandate():
                books.mandates[key] = record
            case Booking():
                books.bookings[key[1:]] = record
            case TreasuryTotals():
                totals = record
    yield from _audit_currency(books, Wei(issued_wei + totals.outstanding_wei))
    yield from _audit_treasury(books, totals)
    yield from _audit_supply(books, config, supply)
    yield from _audit_origin(books, supply)
    yield from _audit_shelves(books)
    yield from _audit_meters(books)
    yield from _audit_sets(books)
    yield from _audit_proposals(books, governance)
    yield from _audit_offences(books, governance)
    yield from _audit_market(books, tariff, order_book)
    yield from _audit_orders(books, order_book)


def _audit_currency(books: _Books, issued_wei: Wei) -> Iterator[str]:
    total = sum(account.balance for account in books.accounts.values())
    if total != issued_wei:
        yield f"all balances are {total} wei, {issued_wei} wei were issued"


def _audit_treasury(books: _Books, totals: TreasuryTotals) -> Iterator[str]:
    booked = dict.fromkeys(BookingKind, 0)
    for booking in books.bookings.values():
        booked[booking.kind] += booking.amount_wei
    if (booked[BookingKind.ISSUED], booked[BookingKind.REDEEMED]) != totals:
        yield (
            f"treasurers issued {totals.issued_wei} and redeemed {totals.redeemed_wei} wei, but their bookings say "
            f"{booked[BookingKind.ISSUED]} and {booked[BookingKind.REDEEMED]} wei"
        )
    if totals.redeemed_wei > totals.issued_wei:
        yield f"treasurers redeemed {totals.redeemed_wei} wei, above the {totals.issued_wei} wei ever issued"


def _audit_supply(books: _Books, config: CttConfig | None, supply: CttSupply) -> Iterator[str]:
    if config is None:
        if books.tokens:
            yield f"{len(books.tokens)} tokens exist, but the CTT was not created"
        return
    if sorted(books.tokens) != list(range(1, supply.last_token_id + 1)):
        yield f"token ids are not 1 to {supply.last_token_id}: {len(books.tokens)} tokens"
    if supply.last_token_id > config.max_supply:
        yield f"{supply.last_token_id} tokens are minted, the maximum is {config.max_supply}"
    energy = sum(token.energy_wh for token in books.tokens.values())
    if energy != supply.energy_wh:
        yield f"the tokens hold {energy} Wh, the supply says {supply.energy_wh} Wh"
    if supply.refilled_wh - supply.covered_wh != supply.energy_wh:
        yield f"refilled {supply.refilled_wh} Wh - covered {supply.covered_wh} Wh is not {supply.energy_wh} Wh"
    covered = sum(prosumer.covered_wh for prosumer in books.prosumers.values())
    if covered != supply.covered_wh:
        yield f"prosumers were covered {covered} Wh, the supply says {supply.covered_wh} Wh"
    if config.max_supply * config.highest_capability_wh > UINT64_MAX:
        yield f"{config.max_supply} tokens of {config.highest_capability_wh} Wh pass 64 bits"
    for token_id, token in books.tokens.items():
        if token.energy_wh > config.highest_capability_wh:
            yield f"token {token_id} holds {token.energy_wh} Wh, above {config.highest_capability_wh} Wh"


def _audit_origin(books: _Books, supply: CttSupply) -> Iterator[str]:
    held, retired = NO_ORIGIN, NO_ORIGIN
    for token_id, token in books.tokens.items():
        if not _can_be(token.origin, token.energy_wh):
            yield f"token {token_id} holds {token.energy_wh} Wh, which cannot be of origin {token.origin}"
        held = add(held, token.origin)
    for address, prosumer in books.prosumers.items():
        if not _can_be(prosumer.retired, prosumer.covered_wh):
            yield f"0x{address.hex()} was covered {prosumer.covered_wh} Wh, not of origin {prosumer.retired}"
        retired = add(retired, prosumer.retired)
    for what, found, told in (("tokens hold", held, supply.origin), ("was retired", retired, supply.retired)):
        if found != told:
            yield f"what {what} is of origin {found}, the supply says {told}"


def _can_be(origin: Origin, energy_wh: int) -> bool:
    """Whether so much energy can have this origin, in the one form that it is written in."""
    in_form = len(origin) <= SOURCE_MAX and (not origin or origin[-1] > 0)
    return in_form and min(origin, default=0) >= 0 and sum(origin) <= energy_wh


def _audit_shelves(books: _Books) -> Iterator[str]:
    owned: dict[Address, dict[int, int]] = {}  # owner -> slot -> token id
    for token_id, token in books.tokens.items():
        slots = owned.setdefault(token.owner, {})
        if token.slot in slots:
            yield f"tokens {slots[token.slot]} and {token_id} are both in slot {token.slot} of 0x{token.owner.hex()}"
        slots[token.slot] = token_id
    for address in owned.keys() - books.prosumers.keys():
        yield f"0x{address.hex()} owns tokens, but has no shelf"
    shelves: dict[Address, dict[int, ShelfPage]] = {}  # owner -> page number -> page
    for (address, number), page in books.pages.items():
        shelves.setdefault(address, {})[number] = page
    for address, prosumer in books.prosumers.items():
        slots = owned.get(address, {})
        agree = sorted(slots) == list(range(prosumer.tokens)) and shelves.get(address, {}) == _pages_of(slots)
        if not agree:
            yield f"shelf of 0x{address.hex()}: pages, tokens and the count {prosumer.tokens} do not agree"
        else:
            yield from _audit_regions(books, address, prosumer, slots)
    for address in shelves.keys() - books.prosumers.keys():
        yield f"0x{address.hex()} has shelf pages, but no shelf"


def _pages_of(slots: dict[int, int]) -> dict[int, ShelfPage]:
    """The pages of a shelf without gaps."""
    ids = tuple(slots[slot] for slot in range(len(slots)))
    starts = range(0, len(ids), PAGE_TOKENS)
    return {start // PAGE_TOKENS: ShelfPage(ids[start : start + PAGE_TOKENS]) for start in starts}


def _audit_regions(
    books: _Books, address: Address, prosumer: Prosumer, slots: dict[int, int]
) -> Iterator[str]:
    energy = dict.fromkeys(Region, 0)
    for slot, token_id in slots.items():
        token, region = books.tokens[token_id], region_of(prosumer, slot)
        energy[region] += token.energy_wh
        belongs = {
            Region.FULL: token.energy_wh >= prosumer.capability_wh,
            Region.PARTIAL: token.energy_wh > 0,
            Region.EMPTY: token.energy_wh == 0,
            Region.ON_SALE: True,
        }[region]
        if not belongs or token.on_sale != (region is Region.ON_SALE):
            yield f"token {token_id} with {token.energy_wh} Wh is in region {region.name} of 0x{address.hex()}"
    if (energy[Region.FULL], energy[Region.PARTIAL]) != (prosumer.full_wh, prosumer.partial_wh):
        yield f"energy of the shelf of 0x{address.hex()} does not add up"
    if prosumer.stored_wh > prosumer.produced_wh or prosumer.covered_wh > prosumer.consumed_wh:
        yield f"0x{address.hex()} stored more than it produced or covered more than it consumed"


def _audit_meters(books: _Books) -> Iterator[str]:
    for address, meter in books.meters.items():
        if meter.prosumer != ZERO_ADDRESS:
            prosumer = books.prosumers.get(meter.prosumer)
            if prosumer is None or prosumer.meter != address or not prosumer.confirmed:
                yield f"meter 0x{address.hex()} serves 0x{meter.prosumer.hex()}, which does not know it"
    for address, prosumer in books.prosumers.items():
        if prosumer.confirmed:
            meter_of = books.meters.get(prosumer.meter)
            if meter_of is None or not (meter_of.concentrator or meter_of.prosumer == address):
                yield f"0x{address.hex()} is confirmed by meter 0x{prosumer.meter.hex()}, which does not know it"


def _audit_sets(books: _Books) -> Iterator[str]:
    epochs = sorted(books.sets)
    if epochs and epochs != list(range(epochs[0], epochs[0] + len(epochs))):
        yield f"the sets of epochs {epochs[0]} to {epochs[-1]} are not all there: {len(epochs)} sets"
    for epoch in epochs:
        members = books.sets[epoch].members
        keys = [member.consensus_key for member in members]
        if not 1 <= len(members) <= VALIDATORS_MAX:
            yield f"the set of epoch {epoch} has {len(members)} members"
        if keys != sorted(set(keys)) or len({member.address for member in members}) < len(members):
            yield f"the set of epoch {epoch} is not in order, or holds a key or an address twice"
        following = books.sets.get(epoch + 1)
        changes = _changed(members, following.members) if following else 0
        if changes > changes_max(len(members)):
            yield f"{changes} members change after epoch {epoch}, the most is {changes_max(len(members))}"


def _changed(before: tuple[Member, ...], after: tuple[Member, ...]) -> int:
    """How many came, left or have another key."""
    return len({member.address for member in {*before} ^ {*after}})


def _audit_proposals(books: _Books, governance: Governance) -> Iterator[str]:
    if sorted(books.proposals) != list(range(1, governance.last_proposal + 1)):
        yield f"proposals are not 1 to {governance.last_proposal}: {len(books.proposals)} proposals"
    still_open = [
        (number, it.proposer) for number, it in books.proposals.items() if it.outcome is Outcome.OPEN
    ]
    if list(governance.open) != sorted(still_open):
        yield f"{len(governance.open)} proposals are listed as open, {len(still_open)} are"
    for number, proposal in books.proposals.items():
        if len(set(proposal.voters)) < len(proposal.voters):
            yield f"a vote for proposal {number} counts twice"
        if (proposal.outcome is Outcome.OPEN) != (proposal.closed_height == 0):
            yield f"proposal {number} is {proposal.outcome.name}, but was closed by block {proposal.closed_height}"


def _audit_offences(books: _Books, governance: Governance) -> Iterator[str]:
    if sorted(books.offences) != list(range(1, governance.last_offence + 1)):
        yield f"offences are not 1 to {governance.last_offence}: {len(books.offences)} offences"
    if {key: barred.offence for key, barred in books.barred.items()} != {
        offence.consensus_key: number for number, offence in books.offences.items()
    }:
        yield f"{len(books.barred)} keys are barred, which are not those of {len(books.offences)} offences"


def _audit_market(books: _Books, tariff: MarketTariff, order_book: MarketBook) -> Iterator[str]:
    if tariff.floor_wei_per_wh > tariff.ceiling_wei_per_wh:
        yield f"the floor of {tariff.floor_wei_per_wh} wei per Wh is above the ceiling"
    ids = {order.slot: order_id for order_id, order in books.orders.items()}
    starts = range(0, order_book.standing, PAGE_ORDERS)
    agree = sorted(ids) == list(range(order_book.standing)) and books.book_pages == {
        start // PAGE_ORDERS: BookPage(
            tuple([ids[slot] for slot in range(start, min(start + PAGE_ORDERS, order_book.standing))])
        )
        for start in starts
    }
    if not agree or len(books.orders) != order_book.standing:
        yield f"the order book: pages, orders and the count {order_book.standing} do not agree"
    for key, auction in books.auctions.items():
        if key != Auction.key(auction.number):
            yield f"auction {auction.number} is kept in another's place"


def _audit_orders(books: _Books, order_book: MarketBook) -> Iterator[str]:
    sides = {(order.owner, order.is_bid): order_id for order_id, order in books.orders.items()}
    told = {
        (owner, is_bid): order_id
        for owner, standing in books.standing.items()
        for is_bid, order_id in ((True, standing.bid), (False, standing.ask))
        if order_id
    }
    if len(sides) < len(books.orders) or sides != told or Standing() in books.standing.values():
        yield f"{len(books.orders)} orders stand, which are not those of {len(books.standing)} accounts"
    for order_id, order in books.orders.items():
        if not 1 <= order_id <= order_book.last_order_id or not order.energy_wh:
            yield f"order {order_id} of {order.energy_wh} Wh cannot stand"
        if order.placer != order.owner and Mandate.key(order.owner, order.placer) not in books.mandates:
            yield f"order {order_id} was placed by 0x{order.placer.hex()}, which has no mandate"
        other = books.orders.get(sides.get((order.owner, False), 0))
        if order.is_bid and other is not None and crosses(order, other):
            yield f"order {order_id} crosses its owner's ask"
