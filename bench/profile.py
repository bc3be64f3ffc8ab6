"""Where a transaction's microseconds go, step by step: `python -m bench.profile`.

Signed readings of meters take the way of every transaction, one step at a time for a whole block of them, against a
chain of the given size; blocks of refills and of consumptions take turns. A step's figure is the least CPU time over
all its blocks: what it costs when nothing disturbs it. Beside it stands, where there is one, what the bare library
takes for the same bytes in the same run (`bench/limits.py`), and from one more pair of blocks what the step allocates:
bytes at its peak, and objects that outlive it. Of a step whose parts are steps of their own the rest is told. HTTP is
measured at a node in a process of its own. JSON on standard output; microseconds, bytes and counts a transaction.
"""

import argparse
import asyncio
import gc
import json
import shutil
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from bench import limits
from bench.local_node import local_node
from bench.throughput import BATCH, bodies_of
from bench.workload import BenchMeter, sign_readings
from ctt_state import rlp
from ctt_state.block import merkle_root
from ctt_state.crypto import public_key, sha256, sign_compact
from ctt_state.errors import InvalidTransaction
from ctt_state.preload import Generator, preload_address, preload_key
from ctt_state.records import Account
from ctt_state.transaction import (
    Signed,
    Transaction,
    decode_transaction,
    recover_sender,
    signing_hash,
    transaction_hash,
)
from ctt_state.tree import update
from ctt_state.units import Address, Ms
from ctt_state.validators import epoch_of
from ctt_state.votes import Kind, Statement, Vote
from node import recoverer
from node.interpreter import settle_interpreter
from node.journal import Journal
from node.ledger import BlockPlan, Ledger, create_ledger
from node.mempool import Mempool, MempoolLimits, PoolRole
from node.recovery import SenderRecovery
from node.store import BlockWrite
from node.unfinal import Executed
from p2p.messages import ProposalMessage, Transactions, encode_message
from rpc.eth import ETH
from rpc.jsonrpc import Dispatcher, EnvelopeLimits, parse_json, read_call
from rpc.jsontext import RawJson, hex_text
from rpc.render import BlockView

SEED: Final = 7
TOKENS_PER_PROSUMER: Final = 10
RULES: Final = ("refill", "consume")
NOT_ON_THE_WAY: Final = "receipt_reply"  # asked for afterwards, if at all
CONSENSUS_KEY: Final = sha256(b"ctt bench profile")
SEND: Final = "eth_sendRawTransaction"

T = TypeVar("T")


class Steps:
    """CPU time, limits and memory of each step, in the order of their first run."""

    def __init__(self, transactions: int) -> None:
        self._transactions = transactions
        self._least_us: dict[str, float] = {}
        self._parts: dict[str, Sequence[str]] = {}
        self._limits: dict[str, dict[str, Any]] = {}
        self._memory: dict[str, dict[str, float]] = {}
        self.is_traced = False  # then memory is what counts, and time does not

    def run(self, step: str, work: Callable[[], T], parts: Sequence[str] = ()) -> T:
        """`parts` names steps that this work contains and that are run apart as well."""
        self._parts[step] = parts
        if self.is_traced:
            return self._trace(step, work)
        us, result = self._time(work)
        self._least_us[step] = min(self._least_us.get(step, us), us)
        return result

    def limit(self, step: str, what: str, work: limits.Work) -> None:
        if not self.is_traced:
            us, _ = self._time(work)
            least = min(self._limits.get(step, {}).get("us", us), us)
            self._limits[step] = {"what": what, "us": least}

    def set(self, step: str, us: float, what: str, limit_us: float) -> None:
        """A step that was measured elsewhere."""
        self._least_us[step] = us
        self._parts[step] = ()
        self._limits[step] = {"what": what, "us": limit_us}

    def own_us(self, step: str) -> float:
        """Without the parts that are steps of their own."""
        return self._least_us[step] - sum(self._least_us[part] for part in self._parts[step])

    def report(self) -> dict[str, dict[str, Any]]:
        return {step: self._report(step) for step in self._least_us}

    def _report(self, step: str) -> dict[str, Any]:
        us = self.own_us(step)
        told: dict[str, Any] = {"cpu_us": round(us, 2), **self._memory.get(step, {})}
        if limit := self._limits.get(step):
            told |= {"limit": limit["what"], "limit_us": round(limit["us"], 2)}
            told["times_limit"] = round(us / max(limit["us"], 1e-3), 2)
        return told

    def _time(self, work: Callable[[], T]) -> tuple[float, T]:
        start = time.process_time()
        result = work()
        return (time.process_time() - start) / self._transactions * 1e6, result

    def _trace(self, step: str, work: Callable[[], T]) -> T:
        gc.collect()
        objects, (size, _) = sys.getallocatedblocks(), tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        result = work()
        _, peak = tracemalloc.get_traced_memory()
        figures = {"peak_bytes": peak - size, "objects_kept": sys.getallocatedblocks() - objects}
        self._memory[step] = {name: round(each / self._transactions, 1) for name, each in figures.items()}
        return result


class Profile:
    """A chain of the benchmark's own, with all that a validator has beside it, and the steps of its blocks."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        rule = {"count": options.tokens, "seed": SEED, "tokensPerProsumer": TOKENS_PER_PROSUMER}
        document = json.loads(options.genesis.read_bytes()) | {"preload": {"generate": rule}}
        create_ledger(directory / "node", json.dumps(document).encode())
        self.ledger = Ledger.open(directory / "node")
        key, header = public_key(CONSENSUS_KEY), self.ledger.head.block.header
        Journal.create(directory / "node", self.ledger.genesis.hash, key)
        place = header.epoch, header.view, header.height
        self.journal = Journal.open(directory / "node", self.ledger.genesis.hash, key, place)
        self.bare = limits.BareStore(directory / "bare")
        self.bare_journal = directory / "bare.journal"
        self.steps = Steps(options.transactions)
        self.counts: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._recovery = SenderRecovery()

    def close(self) -> None:
        self._recovery.close()
        self._loop.run_until_complete(asyncio.sleep(0))  # for what it has cancelled
        self._loop.close()
        self.bare.close()
        self.journal.close()
        self.ledger.close()

    def run_block(self, raws: list[bytes], rule: str) -> None:
        """One block of these transactions, from the requests that carry them to the answers about them."""
        self._take_requests(raws)
        signed = self._check_signatures(raws)
        pool = self._fill_pool(signed)
        executed = self._execute(pool, rule)
        if len(executed.final.receipts) != len(raws) or not all(r.succeeded for r in executed.final.receipts):
            raise RuntimeError("a reading of the benchmark was dropped or refused")
        self._make_final(executed)
        self._tell(executed, pool)

    def _take_requests(self, raws: list[bytes]) -> None:
        """The door: from a request's body to the transaction's bytes, and the reply."""
        run, bodies = self.steps.run, bodies_of(raws, BATCH)
        batches: list[Any] = run("json_parse", lambda: [parse_json(body) for body in bodies])
        items = [item for batch in batches for item in batch]
        run("envelope", lambda: [read_call(item, ETH.methods) for item in items])
        hashes = iter([transaction_hash(raw) for raw in raws])

        async def answer_many(caller: object, calls: Sequence[Any]) -> list[RawJson]:
            return [hex_text(next(hashes)) for _ in calls]

        method = replace(ETH.methods[SEND], many=answer_many, room=None)
        dispatcher = Dispatcher({SEND: method}, EnvelopeLimits(), time.monotonic)

        async def answer_all() -> list[str | None]:
            return [await dispatcher.answer(body, None) for body in bodies]

        replies = run(
            "reply", lambda: self._loop.run_until_complete(answer_all()), ("json_parse", "envelope")
        )
        self.steps.limit("json_parse", "json.loads", limits.json_from(bodies))
        answers = [json.loads(reply or "") for reply in replies]
        self.steps.limit("reply", "json.dumps", limits.json_of(answers))

    def _check_signatures(self, raws: list[bytes]) -> list[Signed]:
        run, limit, chain_id = self.steps.run, self.steps.limit, self.ledger.chain.chain_id
        items = run("rlp_decode", lambda: [rlp.decode(raw, start=1) for raw in raws])
        run("hash", lambda: [transaction_hash(raw) for raw in raws])
        decoded = run(
            "check_fields",
            lambda: [decode_transaction(raw, chain_id) for raw in raws],
            ("rlp_decode", "hash"),
        )
        run("signing_hash", lambda: [signing_hash(each) for each in decoded])
        run("recover", lambda: [recover_sender(each) for each in decoded], ("signing_hash",))
        run("decode_again", lambda: [recoverer.recover(raw) for raw in raws], ("recover",))
        senders = run("recover_hand_over", lambda: self._loop.run_until_complete(self._recover(decoded)))
        limit("rlp_decode", "msgpack's decoder in C", limits.msgpack_from(items))
        limit("hash", "Keccak-256", limits.keccak_of(raws))
        limit("signing_hash", "Keccak-256", limits.keccak_of(raws))
        limit("recover", "secp256k1_ecdsa_recover", limits.recovery_of(decoded))
        return [Signed(*pair) for pair in zip(decoded, senders, strict=True)]

    async def _recover(self, transactions: Sequence[Transaction]) -> list[Address]:
        """By the process beside the node, whose time is not this one's: `decode_again` and what it contains is."""
        outcomes: list[Address] = []
        for first in range(0, len(transactions), BATCH):
            for outcome in await self._recovery.recover(transactions[first : first + BATCH]):
                if isinstance(outcome, InvalidTransaction):
                    raise outcome
                outcomes.append(outcome)
        return outcomes

    def _fill_pool(self, signed: list[Signed]) -> Mempool:
        pool_limits = MempoolLimits(meter_places=len(signed))
        pool = Mempool(self.ledger.chain, pool_limits, lambda address: PoolRole.METER)
        names = [each.transaction.hash for each in signed]
        raws = [each.transaction.raw for each in signed]
        run = self.steps.run
        run("known_check", lambda: [pool.get(each) or self.ledger.store.place_of(each) for each in names])
        run("pool_add", lambda: self._add_all(pool, signed))
        run("gossip_encode", lambda: [encode_message(each) for each in Transactions.batches(raws)])
        self.steps.limit("gossip_encode", "a copy", limits.join_of(raws))
        return pool

    def _add_all(self, pool: Mempool, transactions: list[Signed]) -> None:
        for signed in transactions:
            pool.add(signed, self._account(signed), 0)

    def _account(self, signed: Signed) -> Account:
        account = self.ledger.lookup(Account.key(signed.sender))
        return account if isinstance(account, Account) else Account()

    def _execute(self, pool: Mempool, rule: str) -> Executed:
        """The leader's part: from the pool to a block with its roots."""
        run, limit, ledger = self.steps.run, self.steps.limit, self.ledger
        head = ledger.head.block.header
        time_ms = Ms(head.timestamp_ms + ledger.chain.block_period_ms)
        epoch = epoch_of(head.height + 1, ledger.chain.epoch_blocks)
        proposer = ledger.genesis.validators[0].address
        plan = BlockPlan(ledger.head.hash, epoch, head.view + 1, time_ms, proposer)
        candidates = run("pool_candidates", lambda: list(pool.candidates()))
        applied = run(f"execute_{rule}", lambda: ledger.apply(plan, candidates))
        parts = "records_encode", "leaf_hashes", "tree_update", "receipts_encode", "roots"
        executed = run("seal", lambda: ledger.seal(applied), parts)

        changes, receipts = applied.overlay.changes, applied.receipts
        state = run(
            "records_encode",
            lambda: {key: None if record is None else record.encode() for key, record in changes.items()},
        )
        leaves = run(
            "leaf_hashes",
            lambda: [(sha256(key), None if data is None else sha256(data)) for key, data in state.items()],
        )
        _, nodes = run("tree_update", lambda: update(applied.parent.node, leaves))
        rows = run("receipts_encode", lambda: [receipt.encode() for receipt in receipts])
        names = executed.final.transaction_hashes
        run("roots", lambda: (merkle_root(names), merkle_root(rows)))

        values = [data for data in state.values() if data is not None]
        limit("records_encode", "msgpack's encoder, one call", limits.msgpack_of(list(changes.values())))
        limit("leaf_hashes", "SHA-256", limits.sha256_of([*state, *values]))
        limit(
            "tree_update", "SHA-256 of the nodes", limits.sha256_of(node for node in nodes.values() if node)
        )
        limit("receipts_encode", "msgpack's encoder, one call", limits.msgpack_of(receipts))
        limit("roots", "SHA-256", limits.sha256_of([*names, *rows, *[bytes(65)] * (2 * len(rows) - 2)]))
        if not self.steps.is_traced:
            self._count(executed, values)
        return executed

    def _count(self, executed: Executed, records: Sequence[bytes]) -> None:
        nodes = [node for node in executed.nodes.values() if node]
        self.counts.update(
            {
                "gas": executed.header.gas_used,
                "logs": sum(len(receipt.logs) for receipt in executed.final.receipts),
                "records_written": len(executed.state),
                "record_bytes": sum(map(len, records)),
                "tree_nodes": len(nodes),
                "tree_bytes": sum(map(len, nodes)),
                "receipt_bytes": sum(map(len, executed.receipt_rows)),
                "raw_bytes": sum(map(len, executed.final.block.transactions)),
            }
        )

    def _make_final(self, executed: Executed) -> None:
        """The vote with its block in the journal, the message with both, the batch in the database."""
        ledger, written = self.ledger, list[BlockWrite]()
        header = executed.header
        statement = Statement(Kind.NOTARIZE, header.epoch, header.view, header.view - 1, executed.hash)

        def sign(what: Statement) -> Vote:
            return Vote(what, 0, sign_compact(CONSENSUS_KEY, what.digest(ledger.genesis.hash)))

        def propose() -> bytes:
            vote = self.journal.cast(statement, [], executed.final.block, sign)
            return encode_message(ProposalMessage(executed.final.block, vote, None, ()))

        message = self.steps.run("proposal", propose)
        self.steps.limit(
            "proposal", "a copy and a synced write", limits.synced_write_of(self.bare_journal, message)
        )
        write = ledger.store.commit

        def write_timed(block: BlockWrite) -> None:
            block = replace(block, state=list(block.state), nodes=list(block.nodes))
            written.append(block)
            self.steps.run("leveldb_write", lambda: write(block))

        setattr(ledger.store, "commit", write_timed)  # noqa: B010  a method of this one object
        try:
            self.steps.run("rows", lambda: ledger.commit(executed, None), ("leveldb_write",))
        finally:
            setattr(ledger.store, "commit", write)  # noqa: B010
        self.steps.limit("leveldb_write", "one synced batch", self.bare.write_of(written[0]))
        self.steps.run("publish", lambda: ledger.publish(executed))
        self.journal.advance(header.epoch, header.view, header.height)

    def _tell(self, executed: Executed, pool: Mempool) -> None:
        """What hears of a final block: the pool, those who listen to newHeads, who asks for receipts."""
        final, chain = executed.final, self.ledger.chain
        nonces = [
            (sender, decode_transaction(raw, chain.chain_id).nonce + 1)
            for sender, raw in zip(final.senders, final.block.transactions, strict=True)
        ]
        self.steps.run("pool_settle", lambda: pool.on_block(nonces, 0))
        self.steps.run("new_heads", lambda: BlockView(final, chain).header())
        view = BlockView(final, chain)
        texts = self.steps.run("receipt_reply", lambda: [view.receipt(index) for index in range(view.count)])
        receipts = [json.loads(text) for text in texts]
        self.steps.limit("receipt_reply", "json.dumps", limits.json_of(receipts))


def measure_http(steps: Steps, genesis: Path, seconds: float, raw_bytes: int) -> None:
    """Steps of one request: with one transaction, and with its share of a batch."""
    with local_node(genesis) as (url, pid):
        port = int(url.rsplit(":", 1)[1])
        for step, batch in (("http_single", 1), ("http_batch", BATCH)):
            body_bytes = batch * (2 * raw_bytes + len(bodies_of([b""], 1)[0]))
            us = limits.http_us(port, pid, body_bytes, seconds) / batch
            bare_us = limits.bare_http_us(body_bytes, seconds) / batch
            steps.set(step, us, "a server that gives one fixed answer", bare_us)


def total_us(steps: Steps, http: str) -> float:
    """All that is done for a transaction until its block is final; of the rules, their mean."""
    others = {"http_single", "http_batch", NOT_ON_THE_WAY} - {http}
    own = {step: steps.own_us(step) for step in steps.report() if step not in others}
    rules = [own.pop(f"execute_{rule}") for rule in RULES]
    return sum(own.values()) + sum(rules) / len(rules)


def run(options: argparse.Namespace) -> dict[str, Any]:
    directory = Path(tempfile.mkdtemp(prefix="ctt-bench-", dir=options.dir))
    try:
        profile = Profile(directory, options)
        steps, chain_id, count = profile.steps, profile.ledger.chain.chain_id, options.transactions
        generator = Generator(options.tokens, SEED, TOKENS_PER_PROSUMER, is_signing=True)
        meters = [
            BenchMeter(preload_key(SEED, "meter", index), preload_address(generator, "prosumer", index))
            for index in range(generator.prosumers)
        ]
        settle_interpreter()
        for pair in range(options.blocks // 2 + 1):
            steps.is_traced = pair == options.blocks // 2
            if steps.is_traced:
                tracemalloc.start()
            turn = [meters[(pair * count + number) % len(meters)] for number in range(count)]
            raws = list(sign_readings(turn, count * len(RULES), chain_id))
            for number, rule in enumerate(RULES):
                profile.run_block(raws[number * count : (number + 1) * count], rule)
        tracemalloc.stop()
        profile.close()
        counted = count * (options.blocks // 2) * len(RULES)
        counts = {name: round(each / counted, 2) for name, each in profile.counts.items()}
        measure_http(steps, options.genesis, options.seconds, round(counts["raw_bytes"]))
    finally:
        shutil.rmtree(directory)
    totals = {http: round(total_us(steps, http), 1) for http in ("http_batch", "http_single")}
    return {"tokens": options.tokens, "steps": steps.report(), "total_us": totals, "counts": counts}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--transactions", type=int, default=700, help="of each block")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each look at HTTP (default: 2)")
    parser.add_argument("--genesis", type=Path, default=Path("genesis.json"))
    parser.add_argument("--dir", type=Path, help="where the chain is made (default: the temporary directory)")
    print(json.dumps(run(parser.parse_args()), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
