"""`ctt market`: bids, asks and mandates in the energy market, and what stands, clears and has cleared.

A client of any node's JSON-RPC (docs/MARKET.md). Energy is in kWh of whole Wh, prices are in the currency's units a
kWh, and both are exact. The grid fee is apart: a buyer pays it on top.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from apps.client import Client, RpcError
from apps.curves import sparkline
from ctt_state.crypto import address_of
from ctt_state.modules.market import MARKET
from ctt_state.units import UINT64_MAX, Address, hex_of
from node.cli.book import (
    kwh_of,
    price_of,
    print_book,
    print_stairs,
    rounded_price,
    wishes_of,
)
from node.cli.governance import results
from node.cli.options import (
    address,
    amount,
    energy_kwh,
    format_amount,
    format_energy,
    format_price,
    partner_price,
    positive_int,
    price_per_kwh,
    sentence,
    source_price,
)
from node.cli.output import columns, print_table, show
from node.cli.transact import Foretold, Refusals, add_command, add_dealing, bounded, deal, key_of, show_sent
from node.exits import Exit, Failure

SEE: Final = "ctt market orders"
EPILOG: Final = """\
An order is an intent: nothing is locked, and at each clearing it counts for what its owner can deliver then. An account
has one bid and one ask at most; another one replaces it.

examples:
  ctt market show
  ctt market orders 0x70997970C51812dc3A010C7d01b50e0d17dc79C8
  ctt market auctions --limit 5 --json
  ctt market bid 8 0.20 --source solar=0.25 --key alice.key --dry-run
  ctt market ask 2.5 0.16 --auctions 96 --key bob.key
  ctt market cancel 17 --key bob.key
  ctt market mandate grant 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --energy 50 --spend 10.00 --buy-limit 0.25 \\
      --sell-limit 0.12 --auctions 2688 --key alice.key
  ctt market mandate show 0xb57F333Ee9520ADF12630bD60Fe07169A08a9B20 0x70997970C51812dc3A010C7d01b50e0d17dc79C8
  ctt market mandate revoke 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --key alice.key
"""
PAGE_MAX: Final = 100
HISTORY: Final = 40  # auctions in the run of prices


REFUSALS: Final = Refusals(
    {
        "NotCreated": "there is no CTT yet, so there is nothing to trade",
        "NoMarket": "this chain has no market: its genesis document says nothing of one",
        "NotAdmin": "{caller} is not the CTT's admin",
        "NotTheChain": "only the chain itself clears an auction",
        "InvalidAmount": "{amount} Wh or wei per Wh is asked for; it can be {minimum} to {maximum}",
        "InvalidSource": "source {source} is named twice, or there is none above {maximum}",
        "InvalidPartner": "{partner} is named twice, or is the order's own owner",
        "InvalidPlatform": "{platform} cannot be given a mandate by this account",
        "InvalidGridOperator": "{gridOperator} can hold no money",
        "InvalidLimit": "a page has at most {maximum}, not {limit}",
        "TooManyWishes": "{wishes} wishes; an order has at most {maximum} of a kind",
        "AuctionOver": "auction {auction} is over: {current} takes orders now",
        "UnknownAuction": "auction {auction} is not known: there are {oldest} to {newest}",
        "NoTokens": "{owner} owns no token, so it can neither give nor take energy; ctt token buy gets one",
        "CrossesOwnOrder": "it could trade with the account's own order {orderId}: a bid lies below the own ask",
        "BookFull": "{limit} orders stand, which is all that can; try again after the next clearing",
        "UnknownOrder": "order {orderId} does not stand, or not any more",
        "NotOwner": "order {orderId} is of {owner}, not of {caller}",
        "NotPlacer": "order {orderId} was placed by {placer}, not by {caller}",
        "NoMandate": "{owner} has given {platform} no mandate",
        "OutsideMandate": "{asked} is asked for; the mandate's limit is {limit} (Wh, wei per Wh or auction)",
    }
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "market", help="buy and sell energy in the auctions", description=__doc__, epilog=EPILOG
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = partial(add_command, commands, refusals=REFUSALS)

    shown = add("show", run_show, "show tariff, auction and order book")
    shown.add_argument("--orders", type=_page, default=20, metavar="N", help="of each side (default: 20)")
    orders = add("orders", run_orders, "show an account's orders")
    orders.add_argument("owner", type=address, metavar="ADDRESS")
    past = add("auctions", run_auctions, "show what auctions came to, newest first")
    past.add_argument("--limit", type=_page, default=20, metavar="N", help="how many (default: 20)")
    past.add_argument("--from", dest="first", type=positive_int, metavar="NUMBER", help="default: the newest")

    bid = add("bid", partial(_run_order, is_bid=True), "buy up to so much energy")
    ask = add("ask", partial(_run_order, is_bid=False), "sell up to so much energy")
    for command, limit in ((bid, "the most it pays per kWh"), (ask, "the least it takes per kWh")):
        command.add_argument("energy", type=energy_kwh, metavar="KWH")
        command.add_argument("limit", type=price_per_kwh, metavar="PRICE", help=limit)
        _add_partners(command)
        _add_expiry(command, is_required=False)
        command.add_argument(
            "--for", dest="owner", type=address, metavar="ADDRESS", help="act by this account's mandate"
        )
        add_dealing(command)
    bid.add_argument(
        "--source",
        dest="sources",
        type=source_price,
        action="append",
        default=[],
        metavar="SOURCE=PRICE",
        help="another limit for energy of this source, such as solar=0.25; may be repeated",
    )
    ask.set_defaults(sources=[])
    cancel = add("cancel", run_cancel, "take a standing order back")
    cancel.add_argument("order", type=positive_int, metavar="ORDER")
    add_dealing(cancel)
    _add_mandates(commands)


def _add_partners(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--partner",
        dest="partners",
        type=partner_price,
        action="append",
        default=[],
        metavar="ADDRESS=PRICE",
        help="another price for this account, in an ask's order of serving; 0 is a gift; up to four",
    )


def _add_expiry(parser: argparse.ArgumentParser, *, is_required: bool) -> None:
    expiry = parser.add_mutually_exclusive_group(required=is_required)
    otherwise = "" if is_required else " (default: until it is served or cancelled)"
    expiry.add_argument(
        "--auctions", type=positive_int, metavar="N", help=f"for the current auction and N more{otherwise}"
    )
    expiry.add_argument("--until", type=positive_int, metavar="AUCTION", help="to the end of this auction")


def _add_mandates(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "let a platform trade for an account within limits"
    parser = commands.add_parser("mandate", help=text, description=sentence(text))
    add = partial(
        add_command,
        parser.add_subparsers(title="commands", metavar="COMMAND", required=True),
        refusals=REFUSALS,
    )
    grant = add("grant", run_grant, "give a platform a mandate, or another one")
    grant.add_argument("platform", type=address, metavar="ADDRESS")
    grant.add_argument("--energy", type=energy_kwh, required=True, metavar="KWH", help="bought and sold")
    grant.add_argument("--spend", type=amount, required=True, metavar="AMOUNT", help="grid fees included")
    grant.add_argument(
        "--buy-limit", type=price_per_kwh, required=True, metavar="PRICE", help="no bid above, per kWh"
    )
    grant.add_argument(
        "--sell-limit", type=price_per_kwh, required=True, metavar="PRICE", help="no ask below, per kWh"
    )
    _add_expiry(grant, is_required=True)
    revoke = add("revoke", run_revoke, "take a mandate back, and the orders placed by it")
    revoke.add_argument("platform", type=address, metavar="ADDRESS")
    for command in (grant, revoke):
        add_dealing(command)
    shown = add("show", run_mandate, "show what is left of a mandate")
    shown.add_argument("owner", type=address, metavar="OWNER")
    shown.add_argument("platform", type=address, metavar="PLATFORM")


def _page(text: str) -> int:
    size = positive_int(text)
    if size > PAGE_MAX:
        raise argparse.ArgumentTypeError(f"{size} is more than a page has: 1 to {PAGE_MAX}")
    return size


# --- orders and mandates --------------------------------------------------------------------------------------------


async def _run_order(client: Client, options: argparse.Namespace, *, is_bid: bool) -> None:
    key = key_of(options)
    owner = options.owner or address_of(key)
    until = await bounded(_expiry(client, options), options)
    signature, arguments = _order_call(options, is_bid=is_bid, until=until)
    side = "bid" if is_bid else "ask"

    async def foresee(request: dict[str, str]) -> Foretold:
        head = f"{side} of {format_energy(options.energy)} kWh at {format_price(options.limit)} per kWh"
        return await _foresee(client, request, owner, head, is_bid=is_bid)

    sent = await deal(client, options, key, MARKET, signature, *arguments, see=SEE, foresee=foresee)
    if sent is not None:
        number = sent.events["OrderPlaced"]["orderId"]
        show_sent(options, sent, [f"order {number} stands {_until_words(until)}"], {"orderId": number})


def _order_call(options: argparse.Namespace, *, is_bid: bool, until: int) -> tuple[str, tuple[Any, ...]]:
    """The market's function for this order, and its arguments."""
    side, types = "bid" if is_bid else "ask", ["uint256", "uint256", "uint64"]
    arguments: list[Any] = [options.energy, options.limit, until]
    if options.owner is not None:
        side, types, arguments = f"{side}For", ["address", *types], [options.owner, *arguments]
    if options.sources or options.partners:
        if is_bid:
            types.append("(uint8,uint256)[]")
            arguments.append(options.sources)
        types.append("(address,uint256)[]")
        arguments.append(options.partners)
    return f"{side}({','.join(types)})", tuple(arguments)


async def run_cancel(client: Client, options: argparse.Namespace) -> None:
    key = key_of(options)
    order = await bounded(client.call("ctt_order", options.order), options)
    is_platforms = order is not None and order["platform"] == hex_of(address_of(key))
    signature = "cancelFor(uint256)" if is_platforms else "cancel(uint256)"
    await _deal_plainly(
        client, options, key, signature, (options.order,), f"order {options.order} is cancelled"
    )


async def run_grant(client: Client, options: argparse.Namespace) -> None:
    key = key_of(options)
    until = await bounded(_expiry(client, options), options)
    arguments = (
        options.platform,
        options.energy,
        options.spend,
        options.buy_limit,
        options.sell_limit,
        until,
    )
    text = f"{hex_of(options.platform)} may trade for {hex_of(address_of(key))} {_until_words(until)}"
    signature = "grantMandate(address,uint256,uint256,uint256,uint256,uint64)"
    await _deal_plainly(client, options, key, signature, arguments, text)


async def run_revoke(client: Client, options: argparse.Namespace) -> None:
    key, text = key_of(options), f"{hex_of(options.platform)} has no mandate any more"
    await _deal_plainly(client, options, key, "revokeMandate(address)", (options.platform,), text)


async def _deal_plainly(
    client: Client,
    options: argparse.Namespace,
    key: bytes,
    signature: str,
    arguments: Sequence[Any],
    text: str,
) -> None:
    """What comes to just this."""

    async def foresee(request: dict[str, str]) -> Foretold:
        return Foretold([f"then {text}"], {})

    sent = await deal(client, options, key, MARKET, signature, *arguments, see=SEE, foresee=foresee)
    if sent is not None:
        show_sent(options, sent, [text], {})


async def _expiry(client: Client, options: argparse.Namespace) -> int:
    """The last auction of an order or a mandate."""
    if options.until is not None:
        return int(options.until)
    if options.auctions is None:
        return UINT64_MAX
    market = await _market(client)
    return int(market["auction"]) + int(options.auctions)


def _until_words(until: int) -> str:
    return "until it is served or cancelled" if until == UINT64_MAX else f"until the end of auction {until}"


async def _foresee(
    client: Client, request: dict[str, str], owner: Address, head: str, *, is_bid: bool
) -> Foretold:
    """What the auction would come to with this order, and the order in it."""
    try:
        clearing, energy, balance = results(
            await client.batch(
                [
                    ("ctt_clearing", [request, hex_of(owner)]),
                    ("ctt_energyOf", [hex_of(owner)]),
                    ("eth_getBalance", [hex_of(owner), "latest"]),
                ]
            )
        )
    except RpcError as refusal:
        return Foretold([head, f"what it would come to cannot be told: {refusal}"], {"clearing": None})
    holds = (
        f"stored {energy['stored']}, room for {energy['spare']}, balance {format_amount(int(balance, 16))}"
    )
    lines = [
        head,
        f"counts for what can be delivered: {holds}",
        f"auction {clearing['auction']} would now come to {_result(clearing)}",
        _own_part(clearing["share"], is_bid=is_bid),
    ]
    return Foretold(lines, {"clearing": clearing})


def _result(told: dict[str, Any]) -> str:
    """What an auction comes to. Between partners there may be energy and no common price."""
    return f"{told['energy']} at {told['price']}" if int(told["energyWh"]) else "nothing"


def _own_part(share: dict[str, Any], *, is_bid: bool) -> str:
    if not int(share["boughtWh" if is_bid else "soldWh"]):
        return "this account would trade nothing yet: the order would stand on"
    if not is_bid:
        return f"of which this account sells {share['sold']} and gets {share['earned']}"
    whole = int(share["paidWei"]) + int(share["gridFeeWei"])
    return (
        f"of which this account buys {share['bought']} for {share['paid']} and a grid fee of {share['gridFee']}: "
        f"{format_amount(whole)}"
    )


# --- what stands and has cleared ------------------------------------------------------------------------------------


async def run_show(client: Client, options: argparse.Namespace) -> None:
    told = await bounded(_read_market(client), options)
    if options.json:
        show(options, [], told)
        return
    market, book, auctions = told["market"], told["book"], told["auctions"]["auctions"]
    operator = market["gridOperator"]
    fee = f"grid fee {price_of(market, 'gridFee')} on top" + (f", to {operator}" if operator else "")
    left_s = market["blocksLeft"] * told["blockPeriodMs"] / 1_000
    left = f"takes orders for {market['blocksLeft']} more blocks, {left_s:.1f} s"
    lines = [
        f"tariff    {price_of(market, 'floor')} to {price_of(market, 'ceiling')} per kWh, {fee}",
        f"auction   {market['auction']}: {left}, to the end of block {market['lastBlock']}",
        f"now       it would come to {_result(told['clearing'])}",
        f"book      {book['bidCount']} bids, {book['askCount']} asks; {market['ordersMax']} orders can stand",
    ]
    if auctions:
        prices = [int(each["priceWeiPerWh"]) for each in reversed(auctions) if int(each["energyWh"])]
        last = auctions[0]
        lines.append(f"last      auction {last['auction']}: {_result(last)}")
        if len(prices) > 1:
            low, high = rounded_price(min(prices)), rounded_price(max(prices))
            lines.append(f"prices    {sparkline(prices)}  {low} to {high}")
    show(options, lines, {})
    print_book(book, options.orders)
    if sys.stdout.isatty():
        print_stairs(book)


async def run_orders(client: Client, options: argparse.Namespace) -> None:
    found = await bounded(client.call("ctt_ordersOf", hex_of(options.owner)), options)
    _check_market(found)
    if options.json:
        show(options, [], found)
        return
    orders = [each for each in (found["bid"], found["ask"]) if each]
    if not orders:
        show(options, [f"{found['owner']} has no standing order"], {})
        return
    table = columns("order", "side", "kWh>", "limit>", "wishes", "until", "placed by")
    for each in orders:
        table.add_row(
            str(each["orderId"]),
            each["side"],
            kwh_of(each),
            price_of(each, "limit"),
            wishes_of(each),
            "cancelled" if int(each["expiryAuction"]) == UINT64_MAX else f"auction {each['expiryAuction']}",
            each["platform"] or "the owner",
        )
    print_table(table)


async def run_auctions(client: Client, options: argparse.Namespace) -> None:
    found = await bounded(client.call("ctt_auctions", options.first, options.limit), options)
    _check_market(found)
    if options.json:
        show(options, [], found)
        return
    table = columns("auction>", "block>", "price>", "kWh>", "bids>", "asks>")
    for each in found["auctions"]:
        figures = (
            each["auction"],
            each["clearedIn"],
            price_of(each, "price"),
            kwh_of(each),
            each["bids"],
            each["asks"],
        )
        table.add_row(*map(str, figures))
    print_table(table)
    if found["next"] is not None:
        print(f"there are more: --from {found['next']}")


async def run_mandate(client: Client, options: argparse.Namespace) -> None:
    owner, platform = hex_of(options.owner), hex_of(options.platform)
    found = await bounded(client.call("ctt_mandate", owner, platform), options)
    if found is None:
        raise Failure(Exit.MISSING, f"{owner} has given {platform} no mandate")
    lines = [
        f"{platform} may trade {found['energy']} and spend {found['spend']} for {owner},",
        f"buying for at most {found['buyLimit']} and selling for at least {found['sellLimit']}, grid fee apart,",
        f"until the end of auction {found['expiryAuction']}",
    ]
    show(options, lines, found)


async def _read_market(client: Client) -> dict[str, Any]:
    """All that `show` shows, each of the newest block. Raises: Failure (78) without a market."""
    market, book, auctions, clearing, chain = results(
        await client.batch(
            [
                ("ctt_market", []),
                ("ctt_orderBook", [0, PAGE_MAX]),
                ("ctt_auctions", [None, HISTORY]),
                ("ctt_clearing", []),
                ("ctt_chainStatus", []),
            ]
        )
    )
    _check_market(market)
    return {
        "market": market,
        "book": book,
        "auctions": auctions,
        "clearing": clearing,
        "blockPeriodMs": chain["blockPeriodMs"],
    }


async def _market(client: Client) -> dict[str, Any]:
    market: dict[str, Any] = await client.call("ctt_market")
    _check_market(market)
    return market


def _check_market(answer: object) -> None:
    if answer is None:
        raise Failure(Exit.CONFIGURATION, REFUSALS.texts["NoMarket"])
