"""How the node is, for Prometheus: read when somebody asks, so that it costs nothing while nobody does.

Times are summaries over the last minute, with the median, the 99th percentile and, as quantile 1, the longest. Counters
begin at the node's start. The label `validator` is a name of the genesis document, or the address of one that joined
later; there are at most as many as validators ever were in a set since the start.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ctt_state.block import FinalBlock
from ctt_state.records import CttSupply
from ctt_state.units import Address
from ctt_state.validators import ValidatorSet
from ctt_state.view import find
from node import VERSION
from node.node import Node
from node.pulse import BLOCKS_KEPT, Lately

QUANTILES: Final = {"p50_ms": "0.5", "p99_ms": "0.99", "max_ms": "1"}


class NodeMetrics(Collector):
    """One node's, from now on. `certificate_ends` is when the one that it shows to its peers does."""

    def __init__(self, node: Node, certificate_ends: datetime | None = None) -> None:
        self._node = node
        self._certificate_ends = certificate_ends
        self._before = node.head.block.header
        self._intervals = Lately(BLOCKS_KEPT)
        self._transactions: Counter[bool] = Counter({True: 0, False: 0})
        self._gas_used = 0
        self._proposed: Counter[Address] = Counter()
        self._turns_missed: Counter[Address] = Counter()
        node.on_final(self._count)

    def collect(self) -> Iterator[Metric]:
        yield from self._of_chain()
        yield from self._of_consensus()
        yield from self._of_validators()
        yield from self._of_machine()
        yield from self._of_energy()

    # --- what is counted with each final block --------------------------------------------------------------------

    def _count(self, final: FinalBlock) -> None:
        header, before = final.block.header, self._before
        self._before = header
        if before.height > 0:  # the genesis document's time is not when the chain began
            self._intervals.add(header.timestamp_ms - before.timestamp_ms)
        self._transactions.update(receipt.succeeded for receipt in final.receipts)
        self._gas_used += header.gas_used
        self._proposed[header.proposer] += 1
        if validators := self._node.validators(header.epoch):
            since = before.view if before.epoch == header.epoch else 0
            self._turns_missed.update(missed_turns(validators, header.epoch, since, header.view))

    # --- what is read when somebody asks --------------------------------------------------------------------------

    def _of_chain(self) -> Iterator[Metric]:
        node, header = self._node, self._node.head.block.header
        build = GaugeMetricFamily("ctt_build_info", "1, with the node's version.", labels=["version"])
        build.add_metric([VERSION], 1)
        yield build
        yield GaugeMetricFamily("ctt_ready", "1 while GET /ready answers 200.", value=node.trouble() is None)
        yield GaugeMetricFamily("ctt_syncing", "1 while blocks come from peers.", value=node.is_syncing())
        yield GaugeMetricFamily("ctt_head_height", "The newest final block.", value=header.height)
        yield GaugeMetricFamily(
            "ctt_head_timestamp_seconds", "That block's own time.", value=header.timestamp_ms / 1_000
        )
        yield GaugeMetricFamily(
            "ctt_since_final_seconds",
            "How long ago it became final here.",
            value=node.since_final_ms() / 1_000,
        )
        yield _summary(
            "ctt_block_interval_seconds", "From one final block's time to the next.", self._intervals
        )
        transactions = CounterMetricFamily(
            "ctt_transactions", "Transactions of final blocks.", labels=["outcome"]
        )
        transactions.add_metric(["succeeded"], self._transactions[True])
        transactions.add_metric(["failed"], self._transactions[False])
        yield transactions
        yield CounterMetricFamily("ctt_gas_used", "Gas of final blocks.", value=self._gas_used)
        yield GaugeMetricFamily(
            "ctt_block_gas_limit", "Most gas of a block.", value=node.parameters.block_gas_limit
        )
        pool = GaugeMetricFamily(
            "ctt_mempool_transactions",
            "Transactions that wait: pending ones for the next blocks, queued ones for a nonce before them.",
            labels=["state"],
        )
        for state, count in zip(("pending", "queued"), node.pool_counts(), strict=True):
            pool.add_metric([state], count)
        yield pool

    def _of_consensus(self) -> Iterator[Metric]:
        node, engine = self._node, self._node.engine
        yield GaugeMetricFamily("ctt_peers", "Nodes with which there is a session.", value=node.peer_count())
        yield GaugeMetricFamily("ctt_epoch", "The epoch under way.", value=engine.epoch)
        yield GaugeMetricFamily("ctt_view", "The view under way, from 1 in each epoch.", value=engine.view)
        yield GaugeMetricFamily(
            "ctt_is_validator", "1 while this node is a validator.", value=engine.me is not None
        )
        yield _summary(
            "ctt_finality_seconds",
            "From a block's proposal, made or received here, to its certificate.",
            node.runner.finality.took,
        )
        yield _summary(
            "ctt_proposal_age_seconds",
            "This machine's clock less a proposal's time: negative or long where a clock is wrong.",
            node.runner.proposal_age,
        )

    def _of_validators(self) -> Iterator[Metric]:
        node, label = self._node, ["validator"]
        yield GaugeMetricFamily(
            "ctt_validators", "Validators of the epoch.", value=len(node.engine.validators.members)
        )
        heard = GaugeMetricFamily(
            "ctt_validator_heard_seconds", "How long ago another validator last said anything.", labels=label
        )
        votes = CounterMetricFamily(
            "ctt_votes_missed",
            "Final views without a vote of the validator in time, as a validator sees it; followers tell nothing.",
            labels=label,
        )
        for signer in node.signers():
            if signer.heard_ms is not None:
                heard.add_metric([self._node.name_of(signer.address)], signer.heard_ms / 1_000)
            if signer.votes_missed is not None:
                votes.add_metric([self._node.name_of(signer.address)], signer.votes_missed)
        yield heard
        yield votes
        for name, text, counts in (
            (
                "ctt_turns_missed",
                "Views that were the validator's turn and had no final block.",
                self._turns_missed,
            ),
            ("ctt_blocks_proposed", "Final blocks that the validator proposed.", self._proposed),
        ):
            family = CounterMetricFamily(name, text, labels=label)
            for address, count in counts.items():
                family.add_metric([self._node.name_of(address)], count)
            yield family

    def _of_machine(self) -> Iterator[Metric]:
        yield _summary(
            "ctt_event_loop_lag_seconds",
            "How late the event loop comes to what is due: what load costs consensus.",
            self._node.pulse.late,
        )
        free, size = self._node.room_bytes()
        yield GaugeMetricFamily("ctt_storage_free_bytes", "Room for the data directory.", value=free)
        yield GaugeMetricFamily("ctt_storage_size_bytes", "The size of its file system.", value=size)
        ends = GaugeMetricFamily(
            "ctt_peer_certificate_expiry_timestamp_seconds", "When the certificate of DIR/tls ends."
        )
        if self._certificate_ends is not None:
            ends.add_metric([], self._certificate_ends.timestamp())
        yield ends

    def _of_energy(self) -> Iterator[Metric]:
        """In Wh, the unit of the ledger, which is exact."""
        lookup = self._node.state(self._node.head.block.header.height)
        supply = find(lookup, CttSupply, CttSupply.key()) or CttSupply()
        yield GaugeMetricFamily("ctt_tokens", "Tokens that exist.", value=supply.last_token_id)
        yield GaugeMetricFamily(
            "ctt_energy_held_watthours", "Energy that all tokens hold.", value=supply.energy_wh
        )
        yield CounterMetricFamily(
            "ctt_energy_stored_watthours", "Energy ever stored in tokens.", value=supply.refilled_wh
        )
        yield CounterMetricFamily(
            "ctt_energy_covered_watthours", "Consumption ever covered from tokens.", value=supply.covered_wh
        )


def missed_turns(validators: ValidatorSet, epoch: int, since: int, view: int) -> Counter[Address]:
    """Whose turn the views were that are between those of two final blocks; `since` 0 is the epoch's start."""
    rounds, rest = divmod(view - since - 1, len(validators.members))
    missed = Counter({each.address: rounds for each in validators.members if rounds})
    missed.update(
        validators.members[validators.leader(epoch, each)].address for each in range(view - rest, view)
    )
    return missed


def _summary(name: str, text: str, lately: Lately) -> Metric:
    family, times = Metric(name, text, "summary"), lately.times()
    for of, quantile in QUANTILES.items():
        family.add_sample(name, {"quantile": quantile}, getattr(times, of) / 1_000)
    family.add_sample(f"{name}_sum", {}, lately.sum_ms / 1_000)
    family.add_sample(f"{name}_count", {}, lately.count)
    return family
