"""What a home is told: the advice of now, and how well such advice did for it before. JSON, for `ctt advise` and
`ctt_advise` alike; figures are estimates, in Wh and in units of the currency."""

import asyncio
from typing import Any, Final

from apps.advisor.backtest import Record, track_record
from apps.advisor.policy import Action, advise
from apps.advisor.series import WH_PER_KWH
from apps.advisor.sources import Known, read_database, read_node, read_terms
from apps.client import Client
from ctt_state.units import Address, hex_of

DECIMALS: Final = 4  # of money
LEAST_GAIN: Final = 0.005  # that is worth a share in percent


async def answer(client: Client, home: Address, database: str | None) -> dict[str, Any]:
    """Reads and reckons, the latter in a thread. Raises: NoAdvice, NoHistory, and as `Client.call`."""
    if database is None:
        past = await read_node(client, home)
    else:
        past = await asyncio.to_thread(read_database, database, home)
    known = await read_terms(client, home, past)
    return await asyncio.to_thread(_reckon, home, known)


def _reckon(home: Address, known: Known) -> dict[str, Any]:
    parts = known.history, known.stock, known.terms
    advice, record = advise(*parts), track_record(*parts)
    is_room = advice.action is Action.BUY_EMPTY
    limit = _money(advice.limit) if advice.energy else None
    return {
        "home": hex_of(home),
        "height": known.height,
        "action": advice.action,
        "energyWh": round(advice.energy * WH_PER_KWH),
        "limitPerKwh": None if is_room else limit,
        "pricePerToken": limit if is_room else None,
        "gain": _money(advice.gain),
        "gainP10": _money(advice.low),
        "gainP90": _money(advice.high),
        "reasons": list(advice.reasons),
        "record": {
            "days": record.days if record else 0,
            "gain": _money(record.gain) if record else None,
            "possible": _money(record.possible) if record else None,
            "text": in_words(record),
        },
    }


def in_words(record: Record | None) -> str:
    if record is None:
        return "no track record yet: too few days of readings and auctions are known to try the advice on"
    days = "the last day" if record.days == 1 else f"the last {record.days} days"
    verb = "lost" if record.gain < -LEAST_GAIN else "gained"
    if record.possible < LEAST_GAIN:
        of_possible = "and nothing was to be gained"
    elif record.gain < -LEAST_GAIN:
        of_possible = f"where {record.possible:.2f} could have been gained"
    else:
        of_possible = f"{max(record.gain, 0.0) / record.possible:.0%} of what was possible".replace("%", " %")
    return f"followed for {days} it would have {verb} {abs(record.gain):.2f} against holding, {of_possible}"


def _money(value: float) -> float:
    return round(value, DECIMALS)
