"""How a home and its meter come together, step by step: what has been done, and who must do what next.

An operator certifies the meter, the prosumer names it, the meter confirms and reports its registers for the first
time (docs/PROTOCOL.md, S-3, S-6, S-7). Each step has a key of its own, so three people may have to act.
"""

from typing import Any, Final

from apps.client import Client
from ctt_state.units import Address, hex_of
from node.cli.options import format_kwh, format_time
from node.cli.transact import Refusals, plain

REGISTER: Final = "ctt prosumer register {meter} --key PROSUMER.key"
CERTIFY: Final = "ctt meter certify {meter} --source SOURCE --max-power WATT --key OPERATOR.key"
CONFIRM: Final = "ctt meter confirm {prosumer} --key METER.key"
REPORT: Final = "ctt meter run, or ctt meter report {prosumer} IMPORT EXPORT --key METER.key"


def _readable(name: str, value: object) -> str:
    if isinstance(value, int) and name in ("lastTime", "readingTime", "blockTime"):
        return format_time(value)
    if isinstance(value, int) and name in ("amount", "limit", "last", "reading", "minimum"):
        return format_kwh(value)
    return plain(name, value)


REFUSALS: Final = Refusals(
    {
        "NotCreated": "there is no CTT yet",
        "NotOperator": "{caller} is no operator; the CTT's admin makes one by setOperator",
        "InvalidMeter": "{meter} cannot be a meter",
        "InvalidSource": "source {source} is none of 0 to {maximum}",
        "ConcentratorFixed": "whether {meter} is a concentrator stays as it was certified first: {concentrator}",
        "MeterNotCertified": f"no operator certifies {{meter}} now; an operator does: {CERTIFY}",
        "MeterTaken": "{meter} serves {prosumer}; that prosumer must first name another meter",
        "NotRegistered": f"{{prosumer}} has named no meter; it does: {REGISTER.format(meter='METER')}",
        "NotProsumersMeter": "the prosumer has named {expected}, not {caller}: is this the right key?",
        "NotConfirmedMeter": f"{{caller}} is not the confirmed meter of {{prosumer}}; it becomes so: {CONFIRM}",
        "AlreadyConfirmed": "{prosumer} is confirmed already; nothing is left to do",
        "ReadingNotNewer": "the last reading is of {lastTime}, this one of {readingTime}",
        "ReadingInFuture": "the reading is of {readingTime}, the chain's time is {blockTime}: is the clock right?",
        "RegisterRanBackwards": "the register stood at {last} and cannot go back to {reading}",
        "ImplausibleReading": "{amount} is more than the certified power allows since the last reading: {limit}",
        "InvalidAmount": "{amount} is out of range",
    },
    _readable,
)


async def find(client: Client, method: str, address: Address) -> dict[str, Any]:
    """What the node says of a prosumer or a meter; nothing for one that it does not know."""
    return await client.call(method, hex_of(address)) or {}


async def next_step(client: Client, prosumer: Address) -> str:
    """What is missing until the prosumer's readings count, and who does it; empty when nothing is."""
    home = await find(client, "ctt_prosumer", prosumer)
    if not home.get("meter"):
        return f"the prosumer names its meter: {REGISTER.format(meter='METER')}"
    meter = await client.call("ctt_meter", home["meter"])
    if not meter["certified"]:
        return f"an operator certifies the meter again: {CERTIFY.format(meter=home['meter'])}"
    if not home["confirmed"]:
        return f"the meter confirms: {CONFIRM.format(prosumer=hex_of(prosumer))}"
    if home["lastReading"] is None:
        return f"the meter tells where its registers stand: {REPORT.format(prosumer=hex_of(prosumer))}"
    return ""
