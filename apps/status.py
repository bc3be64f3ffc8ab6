"""How a node is, for a person: read by JSON-RPC as by any client, shown as a panel on a screen or lines on a pipe."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from apps.client import Client, RpcError

SILENT_MS: Final = 10_000  # a validator that was last heard longer ago is missing
RATE_BLOCKS: Final = 15  # over which the rate is taken: soon after a start without the time before
GIB: Final = 2**30
GOOD, BAD, PLAIN = "green", "red", ""


@dataclass(frozen=True, slots=True)
class Status:
    """What a node said of its chain and of itself, and how many blocks a second become final; none while it stalls."""

    chain: dict[str, Any]  # ctt_chainStatus
    node: dict[str, Any]  # ctt_nodeStatus
    blocks_per_second: float

    @property
    def trouble(self) -> str | None:
        """None of a healthy node; else a line whose first word tells programs what it is."""
        if self.node["trouble"] is not None:
            return _plain(self.node["trouble"])
        is_live = self.chain["finality"] == "live"
        return None if is_live else "stalled: the newest final block is more than 5 s old"

    @property
    def missing(self) -> list[str]:
        """The validators that have said nothing for long."""
        return [name_of(each) for each in self.node["validators"] if (each["heardMs"] or 0) > SILENT_MS]

    def to_json(self) -> dict[str, Any]:
        return {
            "healthy": self.trouble is None,
            "trouble": self.trouble,
            "blocksPerSecond": round(self.blocks_per_second, 3),
            "missing": self.missing,
            "chain": self.chain,
            "node": self.node,
        }


def name_of(validator: dict[str, Any]) -> str:
    return _plain(validator["name"] or validator["address"])


async def read_status(client: Client) -> Status:
    """Raises: RpcError; as `Client.call`; KeyError, TypeError of what is no node of ours."""
    told = await client.batch([("ctt_chainStatus", ()), ("ctt_nodeStatus", ())])
    chain, node = map(_checked, told)
    height = chain["height"]
    before = max(1, height - RATE_BLOCKS)
    if height <= before or chain["finality"] == "stalled":
        return Status(chain, node, 0.0)
    blocks = await client.batch([("eth_getBlockByNumber", (hex(each), False)) for each in (before, height)])
    earlier, later = (int(_checked(block)["timestampMilliseconds"], 16) for block in blocks)
    return Status(chain, node, (height - before) * 1_000 / max(1, later - earlier))


def _checked(answer: Any) -> dict[str, Any]:
    if isinstance(answer, RpcError):
        raise answer
    if not isinstance(answer, dict):
        raise TypeError("not an object")
    return answer


# --- showing ----------------------------------------------------------------------------------------------------------


def render(status: Status, url: str) -> RenderableType:
    """The whole screen."""
    figures = Table.grid(padding=(0, 2))
    for name, text, style in _rows(status):
        figures.add_row(Text(name, style="dim"), Text(text, style=style))
    colour = GOOD if status.trouble is None else BAD
    panel = Panel(figures, title=Text(_node(status, url)), border_style=colour, expand=False)
    return Group(panel, _validators(status))


def lines(status: Status, url: str) -> str:
    """The same for a pipe."""
    rows = [("node", _node(status, url), PLAIN), *_rows(status)]
    return "\n".join(f"{name:<11} {text}" for name, text, _ in rows)


def line(status: Status) -> str:
    """The same in one line."""
    chain, node = status.chain, status.node
    missing = f"  missing: {', '.join(status.missing)}" if status.missing else ""
    return (
        f"{status.trouble or 'healthy'}  block {chain['height']:,}  {status.blocks_per_second:.2f} blocks/s  "
        f"final in {_ms(node['finalityMs'])}  {chain['peers']:,} peers  pool {chain['pool']['pending']:,}  "
        f"lag {_ms(node['loopLagMs'])}{missing}"
    )


def _node(status: Status, url: str) -> str:
    return f"{_plain(status.node['clientVersion'])} at {url}"


def _plain(text: object) -> str:
    """Another's text without what would move the cursor."""
    return "".join([each if each.isprintable() else "?" for each in str(text)])


def _rows(status: Status) -> Iterator[tuple[str, str, str]]:
    """Name, text and style of each figure."""
    chain, node = status.chain, status.node
    yield "state", status.trouble or "healthy", f"bold {GOOD if status.trouble is None else BAD}"
    yield "chain", f"{chain['chainId']:d}, epoch {chain['epoch']:,}, view {chain['view']:,}", PLAIN
    yield "block", f"{chain['height']:,}  {_plain(chain['blockHash'])[:18]}…", "bold"
    yield "rate", f"{status.blocks_per_second:.2f} blocks/s", PLAIN
    yield "finality", _spread(node["finalityMs"]), PLAIN
    if chain.get("notVoting"):
        yield "voting", _plain(chain["notVoting"]), BAD
    yield "validators", _heard(status), BAD if status.missing else PLAIN
    yield "peers", f"{chain['peers']:,}", PLAIN
    yield "pool", f"{chain['pool']['pending']:,} pending, {chain['pool']['queued']:,} queued", PLAIN
    yield "loop lag", _spread(node["loopLagMs"]), PLAIN
    yield "disk", *_room(node["storage"])
    if ctt := chain.get("ctt"):
        yield "tokens", f"{ctt['tokens']:,} hold {_plain(ctt['energyStored'])}", PLAIN


def _heard(status: Status) -> str:
    count = len(status.node["validators"])
    if not status.missing:
        return f"{count}, none is missing"
    return f"{count - len(status.missing)} of {count}; missing: {', '.join(status.missing)}"


def _room(storage: dict[str, int] | None) -> tuple[str, str]:
    if storage is None:
        return "told to operators only", "dim"
    free, size = storage["freeBytes"], storage["sizeBytes"]
    return f"{free / GIB:,.1f} GiB free of {size / GIB:,.1f}", BAD if free < 10 * GIB else PLAIN


def _spread(times: dict[str, float]) -> str:
    return f"{_ms(times)}, 99 % within {times['p99']:g} ms, {times['max']:g} ms at most"


def _ms(times: dict[str, float]) -> str:
    return f"{times['p50']:g} ms"


def _validators(status: Status) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("validator", no_wrap=True)
    table.add_column("heard", justify="right")
    table.add_column("votes missed", justify="right")
    for each in status.node["validators"]:
        heard_ms, missed = each["heardMs"], each["votesMissed"]
        table.add_row(
            name_of(each),
            "this node" if heard_ms is None else f"{heard_ms / 1_000:.1f} s ago",
            "" if missed is None else f"{missed:,}",
            style=BAD if name_of(each) in status.missing else PLAIN,
        )
    return table
