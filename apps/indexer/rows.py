"""Blocks, as JSON-RPC tells them, as rows of the tables. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, Final, NamedTuple

from apps.client import decode_log
from apps.indexer.schema import FACTS
from ctt_state.modules import MODULES
from ctt_state.modules.ctt import CTT
from ctt_state.modules.market import MARKET
from ctt_state.modules.treasury import TREASURY
from ctt_state.units import hex_of

Row = tuple[Any, ...]  # in the order of the table's columns
Json = dict[str, Any]

REPORT: Final = CTT.named("report(address,uint64,uint256,uint256)")
REPORT_BATCH: Final = CTT.named("reportBatch((address,uint64,uint256,uint256)[])")

_CTT: Final = hex_of(CTT.address)
_MODULES: Final = {hex_of(module.address): module for module in (CTT, MARKET, TREASURY)}
_FUNCTIONS: Final = {
    (hex_of(address), hex_of(selector)): function.name
    for address, module in MODULES.items()
    for selector, function in module.functions.items()
}
_SELECTOR_CHARS: Final = 10  # with 0x


class Fetched(NamedTuple):
    """A block with whole transactions, and its receipts."""

    block: Json
    receipts: list[Json]

    @property
    def weight(self) -> int:
        """What there is to do."""
        return 1 + len(self.receipts) + sum(len(receipt["logs"]) for receipt in self.receipts)


class Tariff(NamedTuple):
    """What the market goes by, in wei per Wh."""

    floor: int
    ceiling: int
    grid_fee: int


class Offer(NamedTuple):
    """At which a token is on sale, in wei and wei per Wh."""

    token_price: int
    energy_price: int


class Told(NamedTuple):
    """An event: its place in the block, its transaction's, its name, its values by name."""

    place: int
    position: int
    name: str
    values: Json


class Position(NamedTuple):
    """A block; -1 and zeros before the first."""

    height: int
    block_hash: bytes


class OtherChain(Exception):
    """A block does not follow the one before it."""


class Batch:
    """The blocks that follow `after`, as rows by table. The tariff is the market's before them, then after them.

    Raises: OtherChain.
    """

    def __init__(self, blocks: Iterable[Fetched], after: Position, tariff: Tariff | None) -> None:
        self.after = self.last = after
        self.tables: dict[str, list[Row]] = {table.name: [] for table in FACTS}
        self.meters: dict[bytes, Row] = {}  # certified, as rows of theirs
        self.revoked: dict[bytes, int] = {}  # of blocks before, by height
        self.tariff = tariff
        self._offers: dict[int, Offer] = {}
        self._unpriced: list[tuple[int, int]] = []  # sales of an earlier offer: place in trades, token
        self._matched: list[Told] = []  # trades whose auction has not been told yet
        self.height, self.time_ms = after.height, 0
        for fetched in blocks:
            self._add_block(*fetched)

    def _add_block(self, block: Json, receipts: list[Json]) -> None:
        height, block_hash = _int(block["number"]), _bytes(block["hash"])
        if (height - 1, _bytes(block["parentHash"])) != self.last:
            raise OtherChain(
                f"the node's block {height} does not follow block {self.last.height} of the database, "
                f"{hex_of(self.last.block_hash)}: it is of another chain"
            )
        self.height, self.last = height, Position(height, block_hash)
        self.time_ms = _int(block["timestampMilliseconds"])
        self.tables["blocks"].append(
            (
                self.height,
                self.time_ms,
                block_hash,
                _bytes(block["miner"]),
                _int(block["view"]),
                len(receipts),
                _int(block["gasUsed"]),
            )
        )
        for transaction, receipt in zip(block["transactions"], receipts, strict=True):
            self._add_transaction(transaction, receipt)

    def _add_transaction(self, transaction: Json, receipt: Json) -> None:
        to, position = transaction["to"], _int(transaction["transactionIndex"])
        function = _FUNCTIONS.get((to, transaction["input"][:_SELECTOR_CHARS]))
        succeeded = receipt["status"] == "0x1"
        self.tables["transactions"].append(
            (
                self.height,
                position,
                self.time_ms,
                _bytes(transaction["hash"]),
                _bytes(transaction["from"]),
                _bytes(to) if to else None,
                function,
                _int(transaction["value"]),
                _int(receipt["gasUsed"]),
                succeeded,
            )
        )
        readings: list[Told] = []
        for log in receipt["logs"]:
            kind = _EVENTS.get((log["address"], log["topics"][0]))
            if kind is None:
                continue
            _, values = decode_log(_MODULES[log["address"]], log) or ("", {})
            told = Told(_int(log["logIndex"]), position, kind, values)
            handle = _HANDLERS.get(kind)
            if handle:
                handle(self, told)
            elif kind == "OriginRetired":  # of the consumption told just before
                readings[-1].values.setdefault("retired", []).append((values["source"], values["energy"]))
            else:
                readings.append(told)
        if succeeded and to == _CTT:
            self._add_readings(transaction, position, readings)

    # --- readings ---

    def _add_readings(self, transaction: Json, position: int, told: list[Told]) -> None:
        """A row for each reading that was taken, also for one by which nothing grew."""
        data, meter = transaction["input"], _bytes(transaction["from"])
        for item, time_ms, prosumer, own in _readings_of(data, told, self.time_ms):
            produced = stored = consumed = covered = 0
            key = (prosumer, time_ms, self.height, position, item)
            for each in own:
                values = each.values
                if each.name == "EnergyRefilled":
                    produced, stored = values["offered"], values["stored"]
                else:
                    consumed, covered = values["requested"], values["covered"]
                    self.tables["retired"] += [(*key, *part) for part in values.get("retired", ())]
            self.tables["readings"].append((*key, meter, produced, stored, consumed, covered))

    # --- trades ---

    def _on_trade(self, told: Told) -> None:
        self._matched.append(told)

    def _on_clearing(self, told: Told) -> None:
        """A clearing tells its trades first, and its number and price last."""
        auction, price = told.values["auction"], told.values["price"]
        tariff = self.tariff or Tariff(0, 0, 0)
        for each in self._matched:
            values = each.values
            kind = "auction" if each.name == "Trade" else "partner" if values["price"] else "gift"
            parties = (values["buyer"], values["seller"])
            fee = values["energy"] * tariff.grid_fee
            self._trade(each, kind, auction, None, parties, values["price"], grid_fee_wei=fee)
        self._matched.clear()
        figures = (price, told.values["energy"], told.values["bids"], told.values["asks"])
        self.tables["auctions"].append((auction, self.height, self.time_ms, *figures, *tariff))

    def _on_sale(self, told: Told) -> None:
        """The event tells the sum; what of it the energy cost, the offer says."""
        values = told.values
        token, paid = values["tokenId"], values["price"]
        self._token(told, "sale", values["seller"], values["buyer"], price=paid, energy=values["energy"])
        if token not in self._offers:
            self._unpriced.append((len(self.tables["trades"]), token))
        offer = self._offers.get(token, Offer(paid, 0))
        parties = (values["buyer"], values["seller"])
        self._trade(told, "sale", None, token, parties, offer.energy_price, token_wei=offer.token_price)

    def price_sales(self, offer_of: Callable[[int], Offer | None]) -> None:
        """The same for tokens that were offered in blocks before. One that the chain was born with on sale has no
        offer: all that was paid counts as the token's price."""
        trades = self.tables["trades"]
        for place, token in self._unpriced:
            offer = offer_of(token)
            if offer:
                *key, energy, _, _, _, grid_fee_wei = trades[place]
                price = offer.energy_price
                trades[place] = (*key, energy, price, energy * price, offer.token_price, grid_fee_wei)
        self._unpriced.clear()

    def _on_gift(self, told: Told) -> None:
        """Of a token with its energy."""
        values = told.values
        self._trade(told, "gift", None, values["tokenId"], (values["to"], values["from"]), 0)

    def _trade(
        self,
        told: Told,
        kind: str,
        auction: int | None,
        token: int | None,
        parties: tuple[bytes, bytes],
        price: int,
        *,
        token_wei: int = 0,
        grid_fee_wei: int = 0,
    ) -> None:
        """`parties`: the buyer, the seller."""
        energy = told.values["energy"]
        key = (self.height, told.place, self.time_ms, told.position, kind, auction, token)
        self.tables["trades"].append((*key, *parties, energy, price, energy * price, token_wei, grid_fee_wei))

    def _on_tariff(self, told: Told) -> None:
        values = told.values
        self.tariff = Tariff(values["floor"], values["ceiling"], values["gridFee"])
        key = (self.height, told.place, told.position, self.time_ms)
        self.tables["tariffs"].append((*key, *self.tariff, values["gridOperator"]))

    # --- tokens ---

    def _on_transfer(self, told: Told) -> None:
        owner, new_owner = told.values["from"], told.values["to"]
        is_mint = not any(owner)
        self._token(told, "mint" if is_mint else "transfer", None if is_mint else owner, new_owner)

    def _on_offer(self, told: Told) -> None:
        values = told.values
        offer = Offer(values["tokenPrice"], values["energyPrice"])
        self._offers[values["tokenId"]] = offer
        self._token(told, "offer", values["owner"], offer=offer)

    def _on_withdrawal(self, told: Told) -> None:
        self._token(told, "withdraw", told.values["owner"])

    def _token(
        self,
        told: Told,
        kind: str,
        owner: bytes | None,
        new_owner: bytes | None = None,
        *,
        offer: tuple[int | None, int | None] = (None, None),
        price: int | None = None,
        energy: int | None = None,
    ) -> None:
        key = (told.values["tokenId"], self.height, told.place, self.time_ms)
        self.tables["token_history"].append((*key, kind, owner, new_owner, *offer, price, energy))

    # --- treasury, meters ---

    def _on_issue(self, told: Told) -> None:
        self._book(told, "issued", told.values["to"])

    def _on_redemption(self, told: Told) -> None:
        self._book(told, "redeemed", None)

    def _book(self, told: Told, kind: str, account: bytes | None) -> None:
        values = told.values
        key = (self.height, told.place, self.time_ms, kind, values["treasurer"], account)
        self.tables["bookings"].append((*key, values["amount"], values["reference"]))

    def _on_certificate(self, told: Told) -> None:
        meter, *rest = [
            told.values[name] for name in ("meter", "operator", "source", "maxPowerW", "concentrator")
        ]
        self.meters[meter] = (meter, *rest, True, self.height)
        self.revoked.pop(meter, None)

    def _on_revocation(self, told: Told) -> None:
        meter = told.values["meter"]
        known = self.meters.get(meter)
        if known:
            self.meters[meter] = (*known[:-2], False, self.height)
        else:
            self.revoked[meter] = self.height


_READINGS: Final = ("EnergyRefilled", "EnergyConsumed", "OriginRetired", "ReadingRejected")
_HANDLERS: Final[dict[str, Callable[[Batch, Told], None]]] = {
    "Transfer": Batch._on_transfer,
    "TokenOnSale": Batch._on_offer,
    "SaleCancelled": Batch._on_withdrawal,
    "TokenSold": Batch._on_sale,
    "EnergyTransferred": Batch._on_gift,
    "MeterCertified": Batch._on_certificate,
    "MeterRevoked": Batch._on_revocation,
    "Trade": Batch._on_trade,
    "PartnerTrade": Batch._on_trade,
    "AuctionCleared": Batch._on_clearing,
    "TariffSet": Batch._on_tariff,
    "Issued": Batch._on_issue,
    "Redeemed": Batch._on_redemption,
}
# Names by address and topic, of the events that become rows. No two modules share one of these names.
_EVENTS: Final = {
    (address, hex_of(topic)): event.name
    for address, module in _MODULES.items()
    for topic, event in module.events.items()
    if event.name in _HANDLERS or event.name in _READINGS
}


def _readings_of(
    calldata: str, told: list[Told], block_ms: int
) -> Iterable[tuple[int, int, bytes, list[Told]]]:
    """Each reading that this call brought: its place, when it was measured, whose it is, and what was told of it."""
    selector = bytes.fromhex(calldata[2:_SELECTOR_CHARS])
    if selector == REPORT.selector:
        prosumer, time_ms, *_ = REPORT.decode_arguments(_bytes(calldata))
        return [(0, time_ms, prosumer, told)]
    if selector == REPORT_BATCH.selector:
        (readings,) = REPORT_BATCH.decode_arguments(_bytes(calldata))
        return _taken(readings, told)
    return [(item, block_ms, each.values["prosumer"], [each]) for item, each in enumerate(told)]


def _taken(readings: tuple[Row, ...], told: list[Told]) -> Iterable[tuple[int, int, bytes, list[Told]]]:
    """The readings of a batch that were not refused.

    One tells what grew since the prosumer's reading before, and nothing that did not grow. So a prosumer's events fall
    to its readings from the last one back, and what is left is of the first one, whose predecessor is not here.
    """
    refused = {each.values["index"] for each in told if each.name == "ReadingRejected"}
    events: dict[bytes, list[Told]] = defaultdict(list)
    for each in told:
        if each.name != "ReadingRejected":
            events[each.values["prosumer"]].append(each)
    taken: dict[bytes, list[tuple[int, Row]]] = defaultdict(list)
    for item, reading in enumerate(readings):
        if item not in refused:
            taken[reading[0]].append((item, reading))
    for prosumer, own in taken.items():
        left = events[prosumer]
        for (_, before), (item, now) in reversed(list(pairwise(own))):
            grew = sum(figure > last for last, figure in zip(before[2:], now[2:], strict=True))
            at = len(left) - grew
            yield item, now[1], prosumer, left[at:]
            del left[at:]
        yield own[0][0], own[0][1][1], prosumer, left


def _int(quantity: str) -> int:
    return int(quantity, 16)


def _bytes(data: str) -> bytes:
    return bytes.fromhex(data[2:])
