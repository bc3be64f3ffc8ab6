"""`ctt token`: a person's Crypto-Trading Tokens: what they hold, and how to buy, offer and hand them on.

A client of any node's JSON-RPC (docs/PROTOCOL.md, S-7 to S-9). A token is sold at its own price and that of the energy
in it, which stays as it is while the token is on sale. Energy is in kWh, money in the currency's units, both exact.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from apps.client import Client
from ctt_state.crypto import address_of
from ctt_state.modules import MODULES
from ctt_state.modules.ctt import CTT
from ctt_state.units import UINT64_MAX, Address, Wei, hex_of
from node.cli.book import kwh_of, price_of
from node.cli.options import address, format_amount, format_origin, money, positive_int, price_per_kwh
from node.cli.output import columns, print_table, show
from node.cli.transact import (
    Foretold,
    Refusals,
    add_command,
    add_dealing,
    bounded,
    deal,
    key_of,
    plain,
    show_sent,
)
from node.exits import Exit, Failure

SEE: Final = "ctt token show"
EPILOG: Final = """\
examples:
  ctt token show 0x70997970C51812dc3A010C7d01b50e0d17dc79C8
  ctt token buy --empty 2 --key ann.key
  ctt token sell 1 0.02 0.10 --key ann.key
  ctt token withdraw 1 --key ann.key
  ctt token transfer 1 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --key ann.key
  ctt token buy 1 --key ben.key --dry-run
"""
PAGE: Final = 100


def _readable(name: str, value: object) -> str:
    if name in ("required", "sent") and isinstance(value, int):
        return format_amount(value)
    return plain(name, value)


REFUSALS: Final = Refusals(
    {
        "NotCreated": "there is no CTT yet, so there are no tokens",
        "InvalidAmount": "{amount} is asked for; it can be {minimum} to {maximum}",
        "SupplyExhausted": "{requested} empty tokens are asked for; {minted} of {maxSupply} are sold already",
        "InsufficientPayment": "the price is {required} by now, and {sent} were offered",
        "NotOnSale": "token {tokenId} is not on sale",
        "AlreadyOwner": "token {tokenId} is the buyer's already",
        "EnergyBelowMinimum": "the token holds {energy} Wh by now, less than the {minimum} Wh that were seen",
        "ERC721NonexistentToken": "there is no token {tokenId}",
        "ERC721InsufficientApproval": "token {tokenId} is not {operator}'s, and its owner has not approved it",
        "ERC721IncorrectOwner": "token {tokenId} is {owner}'s by now",
        "ERC721InvalidReceiver": "{receiver} can hold no token",
    },
    _readable,
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "token", help="buy, sell and show tokens", description=__doc__, epilog=EPILOG
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = partial(add_command, commands, refusals=REFUSALS)
    shown = add("show", run_show, "show a token, or an account's tokens")
    shown.add_argument("what", type=_token_or_owner, metavar="TOKEN|ADDRESS")
    shown.add_argument(
        "--from", dest="offset", type=positive_int, default=0, metavar="N", help="place in the list"
    )
    buy = add("buy", run_buy, "buy a token that is on sale, with its energy, or empty ones")
    what = buy.add_mutually_exclusive_group(required=True)
    what.add_argument("token", type=token_id, nargs="?", metavar="TOKEN")
    what.add_argument("--empty", type=positive_int, metavar="N", help="so many new ones")
    sell = add("sell", run_sell, "offer a token, or change its prices")
    withdraw = add("withdraw", run_withdraw, "take a token off the market")
    transfer = add("transfer", run_transfer, "hand a token and its energy on for nothing")
    for command in (sell, withdraw, transfer):
        command.add_argument("token", type=token_id, metavar="TOKEN")
    sell.add_argument("price", type=money, metavar="AMOUNT", help="the token's own price")
    sell.add_argument("energy_price", type=price_per_kwh, metavar="PRICE", help="of its energy, per kWh")
    transfer.add_argument("to", type=address, metavar="ADDRESS")
    for command in (buy, sell, withdraw, transfer):
        add_dealing(command)


def token_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and 1 <= int(text) <= UINT64_MAX):
        raise argparse.ArgumentTypeError(f"{text[:40]!a} is no token's number, 1 to {UINT64_MAX}")
    return int(text)


def _token_or_owner(text: str) -> int | Address:
    return address(text) if text.startswith("0x") else token_id(text)


# --- what there is --------------------------------------------------------------------------------------------------


async def run_show(client: Client, options: argparse.Namespace) -> None:
    if isinstance(options.what, int):
        token = await bounded(_token(client, options.what), options)
        show(options, list(_describe(token)), token)
        return
    owner = hex_of(options.what)
    page = await bounded(client.call("ctt_tokensOf", owner, options.offset, PAGE), options)
    if page is None:
        raise Failure(Exit.MISSING, f"{owner} has never had a token")
    if options.json:
        show(options, [], page)
        return
    table = columns("token>", "kWh>", "full>", "on sale", "token price>", "energy price>", "price>")
    for each in page["tokens"]:
        prices = ["", "", "", ""]
        if each["onSale"]:
            own, whole = each["tokenPriceWei"], each["sellingPriceWei"]
            energy_price = price_of(each, "energyPrice")
            prices = ["yes", format_amount(int(own)), energy_price, format_amount(int(whole))]
        table.add_row(str(each["tokenId"]), kwh_of(each), f"{each['chargePercent']} %", *prices)
    print_table(table)
    more = f"; there are more: --from {page['next']}" if page["next"] is not None else ""
    print(f"{page['count']} tokens{more}")


def _describe(token: dict[str, Any]) -> Sequence[str]:
    offer = f"on sale for {token['sellingPrice']}" if token["onSale"] else "not on sale"
    return (
        f"token {token['tokenId']} of {token['owner']}",
        f"holds {token['energy']}{format_origin(token['origin'])}, {token['chargePercent']} % of what it can",
        f"{offer}: {token['tokenPrice']} for the token, {token['energyPrice']} for its energy",
    )


async def _token(client: Client, number: int) -> dict[str, Any]:
    """Raises: Failure (66)."""
    token: dict[str, Any] | None = await client.call("ctt_token", number)
    if token is None:
        raise Failure(Exit.MISSING, f"there is no token {number}")
    return token


# --- what is done ---------------------------------------------------------------------------------------------------


async def run_buy(client: Client, options: argparse.Namespace) -> None:
    key = key_of(options)
    if options.empty is not None:
        (price,) = await bounded(client.read(CTT, "emptyTokenPrice()"), options)
        cost = Wei(price * options.empty)
        text = f"{options.empty} empty tokens for {format_amount(cost)}"
        await _deal(client, options, key, "buyEmptyTokens(uint256)", (options.empty,), f"bought {text}", cost)
        return
    token = await bounded(_token(client, options.token), options)
    cost = Wei(int(token["sellingPriceWei"]))
    text = f"bought token {options.token} with {token['energy']} for {format_amount(cost)}"
    # What was seen is what is paid for: less energy is refused.
    arguments = (options.token, int(token["energyWh"]))
    await _deal(client, options, key, "buyToken(uint256,uint256)", arguments, text, cost)


async def run_sell(client: Client, options: argparse.Namespace) -> None:
    key = key_of(options)
    token = await bounded(_token(client, options.token), options)
    whole = options.price + int(token["energyWh"]) * options.energy_price
    text = f"token {options.token} with {token['energy']} is on sale for {format_amount(whole)}"
    arguments = (options.token, options.price, options.energy_price)
    await _deal(client, options, key, "setOnSale(uint256,uint256,uint256)", arguments, text)


async def run_withdraw(client: Client, options: argparse.Namespace) -> None:
    text = f"token {options.token} is on sale no more"
    await _deal(client, options, key_of(options), "cancelSale(uint256)", (options.token,), text)


async def run_transfer(client: Client, options: argparse.Namespace) -> None:
    key = key_of(options)
    if options.to in MODULES:
        raise Failure(Exit.USAGE, f"{hex_of(options.to)} is a module's address: a token would be lost there")
    token = await bounded(_token(client, options.token), options)
    owner = Address(bytes.fromhex(token["owner"][2:]))
    text = f"token {options.token} with {token['energy']} is {hex_of(options.to)}'s"
    arguments = (owner, options.to, options.token)
    await _deal(client, options, key, "transferFrom(address,address,uint256)", arguments, text)


async def _deal(
    client: Client,
    options: argparse.Namespace,
    key: bytes,
    signature: str,
    arguments: Sequence[Any],
    text: str,
    cost: Wei = Wei(0),
) -> None:
    """Sends it, and says what is so then; beforehand also what that leaves of the sender's money."""

    async def foresee(request: dict[str, str]) -> Foretold:
        balance = int(await client.call("eth_getBalance", hex_of(address_of(key)), "latest"), 16)
        left = f"balance {format_amount(balance)}, then {format_amount(balance - cost)}"
        return Foretold([f"then {text}", left], {"costWei": str(cost), "balanceWei": str(balance)})

    sent = await deal(client, options, key, CTT, signature, *arguments, value=cost, see=SEE, foresee=foresee)
    if sent is not None:
        show_sent(options, sent, [text], {})
