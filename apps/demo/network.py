"""What the demonstration shows of a network's validators: each asked over JSON-RPC, like any node, again and again."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import aiohttp

from apps.client import Client, RpcError

POLL_SECONDS: Final = 0.4
ANSWER_SECONDS_MAX: Final = 2.0
RATE_SECONDS: Final = 5.0  # over which the rate is taken
QUIET_MS: Final = 1_000  # without a block, from which on the rate falls
SILENT_MS: Final = 2_000  # a validator that was heard longer ago does not vote
MISSED_BLOCKS: Final = 10  # in a row without its vote, from which on a validator that is heard does not vote
RUNNING: Final = "running"


class Member(Protocol):
    """A validator as whoever runs it knows it."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def state(self) -> str:
        """`running`, or what else it is."""
        ...


class Seen(NamedTuple):
    """What a validator last said of itself; times in ms."""

    height: int
    peers: int
    round_trip_ms: float
    loop_lag_ms: float
    finality_ms: float
    is_live: bool


class Head(NamedTuple):
    """The newest final block that any of them tells, and when that was heard of, in s on the loop's clock."""

    height: int
    time_ms: int
    heard_s: float


class Heard(NamedTuple):
    """What one validator heard of another: when, in s on the loop's clock, and how many of its votes it missed at a
    height; from one such count to the next, whether that was all of them."""

    at_s: float
    height: int
    missed: int
    is_missing: bool


@dataclass
class NetworkWatch:
    """The validators by name, and the chain's pulse as the foremost of them tells it."""

    seen: dict[str, Seen | None] = field(default_factory=dict)  # None of who does not answer
    heads: deque[Head] = field(default_factory=deque)
    turn: str = ""  # the validator whose turn the next view is
    heard: dict[str, dict[str, Heard]] = field(default_factory=dict)  # who, by whom

    @property
    def height(self) -> int:
        return self.heads[-1].height if self.heads else 0

    def is_live(self, members: Sequence[Member]) -> bool:
        """Whether blocks become final at any validator that runs."""
        return any(each.is_live for each in self._running(members))

    def finality_ms(self, members: Sequence[Member]) -> float | None:
        """From a proposal to its certificate, the middle one of the last minute's; None when nobody tells."""
        told = sorted(each.finality_ms for each in self._running(members))
        return told[len(told) // 2] if told else None

    def _running(self, members: Sequence[Member]) -> list[Seen]:
        return [seen for each in members if each.state == RUNNING and (seen := self.seen.get(each.name))]

    def blocks_per_second(self, now_s: float) -> float:
        """By the blocks' own times; a silence since then counts against it."""
        if len(self.heads) < 2:
            return 0.0
        first, last = self.heads[0], self.heads[-1]
        quiet_ms = max(0.0, (now_s - last.heard_s) * 1_000 - QUIET_MS)
        span_ms = last.time_ms - first.time_ms + quiet_ms
        return (last.height - first.height) * 1_000 / span_ms if now_s - last.heard_s < RATE_SECONDS else 0.0

    def votes(self, name: str, now_s: float) -> str:
        """`votes`; `misses` when none of its votes came in time of late, whoever counts; `silent` when nobody heard it
        for long; "" when there is nobody else who could have."""
        heard = self.heard.get(name)
        if not heard:
            return ""
        if now_s - max(each.at_s for each in heard.values()) > SILENT_MS / 1_000:
            return "silent"
        return "misses" if all(each.is_missing for each in heard.values()) else "votes"

    def take_head(self, head: Head) -> None:
        if head.height > self.height and head.height > 0:
            self.heads.append(head)
        while len(self.heads) > 2 and self.heads[0].heard_s < head.heard_s - RATE_SECONDS:
            self.heads.popleft()

    def take_heard(self, witness: str, height: int, validators: Sequence[Any], now_s: float) -> None:
        """What a validator that runs heard of the others."""
        for each in validators:
            name, heard_ms, missed = each["name"], each["heardMs"], each["votesMissed"] or 0
            if name is None or heard_ms is None:
                continue
            by = self.heard.setdefault(name, {})
            before = by.get(witness) or Heard(0, height, missed, is_missing=False)
            at_s = now_s - heard_ms / 1_000
            is_missing = missed - before.missed >= height - before.height
            is_early = height - before.height < MISSED_BLOCKS and (is_missing or not before.is_missing)
            by[witness] = before._replace(at_s=at_s) if is_early else Heard(at_s, height, missed, is_missing)


def now_s() -> float:
    """Of the event loop's clock."""
    return asyncio.get_running_loop().time()


async def follow_network(members: Sequence[Member], watch: NetworkWatch) -> None:
    """Looks at every validator, for ever."""
    async with asyncio.TaskGroup() as tasks:
        for member in members:
            tasks.create_task(_follow(member, watch))


async def _follow(member: Member, watch: NetworkWatch) -> None:
    async with Client(member.url) as client:
        while True:
            start_s = now_s()
            try:
                async with asyncio.timeout(ANSWER_SECONDS_MAX):
                    chain, node = await _ask(client)
                    asked_s = now_s()
                    watch.seen[member.name] = _seen(chain, node, (asked_s - start_s) * 1_000)
                    watch.take_head(Head(chain["height"], chain["timeMs"], asked_s))
                    if member.state == RUNNING:
                        watch.take_heard(member.name, chain["height"], node["validators"], asked_s)
                    if chain["height"] == watch.height:
                        watch.turn = await _turn(client, chain, node)
            except (aiohttp.ClientError, RpcError, TimeoutError):
                watch.seen[member.name] = None
            await asyncio.sleep(POLL_SECONDS)


async def _ask(client: Client) -> tuple[Any, Any]:
    """Raises: RpcError; as `Client.call`."""
    chain, node = await client.batch([("ctt_chainStatus", ()), ("ctt_nodeStatus", ())])
    for answer in (chain, node):
        if isinstance(answer, RpcError):
            raise answer
    return chain, node


def _seen(chain: Any, node: Any, round_trip_ms: float) -> Seen:
    return Seen(
        chain["height"],
        chain["peers"],
        round_trip_ms,
        node["loopLagMs"]["p50"],
        node["finalityMs"]["p50"],
        chain["finality"] == "live",
    )


async def _turn(client: Client, chain: Any, node: Any) -> str:
    """Whose turn the view after the newest final block's is; after an epoch's last block it is the next one's first."""
    told = await client.call("ctt_validators", hex(chain["height"]))
    epoch, view = chain["epoch"], chain["view"] + 1
    if told and chain["height"] == told["lastHeight"] and told["next"]:
        told, epoch, view = told["next"], epoch + 1, 1
    members = told["validators"] if told else []
    leader = members[(epoch + view) % len(members)]["address"] if members else ""
    return next((each["name"] or "" for each in node["validators"] if each["address"] == leader), "")
