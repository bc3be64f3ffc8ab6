"""What a state of any size costs: `python -m bench.scale --tokens 10000000 --out scale.json`.

A chain of so many generated tokens is made by `ctt init` and run by `ctt run`, and so is one of `--beside` tokens. Then
blocks of readings of random prosumers go to both in turn, round by round, without network and signatures: whatever else
the machine does costs both. What counts are two ratios: of the CPU of the thread that executes, round by round, and of
all the process's CPU from the first round to the last, in which LevelDB's own threads are.

With `--dir` chains stay there and are used again, or gone on with if their making was interrupted. `--beside 0` leaves
out the other. JSON in `--out` or on standard output.
"""

import argparse
import asyncio
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

from apps.client import Client
from bench.local_node import STOP_SECONDS_MAX, free_port, wait_ready
from bench.state import SEED, TOKENS_PER_PROSUMER, Fleet, Stopwatch, run_block
from ctt_state.genesis import Genesis, load_genesis
from ctt_state.light import ChainRules, check_final, check_record, decode_header
from ctt_state.records import Token
from ctt_state.units import TokenId, hex_of
from ctt_state.votes import Certificate
from node.interpreter import settle_interpreter
from node.ledger import Ledger
from node.proofs import prove_records
from node.snapshot import CHUNK_ROWS_MAX

COMMAND: Final = (sys.executable, "-m", "node.cli.main")
MIB: Final = 2**20
ASKED: Final = 200  # tokens that are looked up, and proven
GIVEN_SECONDS: Final = 10.0  # for which pieces of a snapshot are read


def log(text: str) -> None:
    print(f"bench.scale: {text}", file=sys.stderr, flush=True)


# --- a chain in its directory -------------------------------------------------------------------------------------


class Chain(NamedTuple):
    """A data directory, with its genesis document and the nonces of its meters beside it."""

    directory: Path
    tokens: int

    @property
    def data(self) -> Path:
        return self.directory / "node"

    @property
    def document(self) -> Path:
        return self.directory / "genesis.json"

    @property
    def nonces(self) -> Path:
        return self.directory / "nonces.json"

    @property
    def genesis(self) -> Genesis:
        return load_genesis(self.document.read_bytes())


def write_document(chain: Chain, template: Path) -> None:
    content = json.loads(template.read_bytes())
    content["ctt"]["maxSupply"] = max(content["ctt"]["maxSupply"], chain.tokens)
    rule = {"count": chain.tokens, "seed": SEED, "tokensPerProsumer": TOKENS_PER_PROSUMER, "signing": False}
    content["preload"] = {"generate": rule}
    chain.document.write_text(json.dumps(content))


def make_chain(chain: Chain) -> dict[str, Any]:
    """What `ctt init` takes, and the disk after it."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    init = (*COMMAND, "init", "--dir", str(chain.data), "--genesis", str(chain.document))
    subprocess.run(init, check=True, stdout=sys.stderr)
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "tokens_per_second": round(chain.tokens / seconds),
        "largest_process_mib": round(after.ru_maxrss / 1024),
        "disk_mib": disk_mib(chain),
    }


def disk_mib(chain: Chain) -> int:
    return sum(file.stat().st_size for file in chain.data.rglob("*") if file.is_file()) // MIB


def memory_mib(process: int | str = "self") -> dict[str, int]:
    """Resident: the process's own, and of files that it maps, which the system takes back when it needs it."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    named = {"resident": "VmRSS", "own": "RssAnon", "mapped": "RssFile"}
    return {name: int(fields[field].split()[0]) // 1024 for name, field in named.items()}


# --- a node -------------------------------------------------------------------------------------------------------


@contextmanager
def running(chain: Chain) -> Iterator[tuple[str, int]]:
    """Its URL and process id, once it answers."""
    port = free_port()
    process = subprocess.Popen(
        [*COMMAND, "run", "--dir", str(chain.data), "--rpc-port", str(port), "--log-level", "error"]
    )
    try:
        wait_ready(url := f"http://127.0.0.1:{port}", process)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(STOP_SECONDS_MAX)


def look_at_node(chain: Chain) -> dict[str, Any]:
    """How long it takes to start, what it holds in memory, and answers that its tokens get."""
    start = time.monotonic()
    with running(chain) as (url, pid):
        seconds = time.monotonic() - start
        at_start = memory_mib(pid)
        answers = asyncio.run(ask(url, chain))
        return {
            "start_seconds": round(seconds, 2),
            "memory_mib_at_start": at_start,
            **answers,
            "memory_mib_after": memory_mib(pid),
        }


async def ask(url: str, chain: Chain) -> dict[str, Any]:
    """Random tokens and their proofs, each of which is checked as a light client does."""
    chosen = random.Random(SEED).sample(range(1, chain.tokens + 1), ASKED)
    genesis, sizes = chain.genesis, []
    async with Client(url) as client:
        first = await client.call("eth_blockNumber")
        while await client.call("eth_blockNumber") == first:  # those of the ledger alone have no certificates
            await asyncio.sleep(0.1)

        async def token(number: int) -> None:
            told = await client.call("ctt_token", hex(number))
            if told["tokenId"] != number:
                raise RuntimeError(f"token {number}: {told}")

        async def proof(number: int) -> None:
            told = await client.call("ctt_getProof", [hex_of(Token.key(TokenId(number)))])
            sizes.append(check_answer(genesis, number, told))

        return {
            "ctt_token_ms": await timed(token, chosen),
            "ctt_getProof_ms": await timed(proof, chosen),
            "proof_bytes": {"p50": statistics.median(sizes), "max": max(sizes)},
        }


def check_answer(genesis: Genesis, number: int, told: Any) -> int:
    """The proof's size. Raises: LightRejected."""
    finality, (record,) = told["finality"], told["records"]
    headers = [decode_header(read_hex(each)) for each in (finality["header"], *finality["descendants"])]
    rules = ChainRules(genesis.hash, genesis.epoch_blocks, genesis.parameters.block_period_ms)
    check_final(rules, genesis.validator_set, headers, Certificate.decode(read_hex(finality["certificate"])))
    nodes = list(map(read_hex, record["proof"]))
    check_record(headers[0], Token.key(TokenId(number)), read_hex(record["value"]), nodes)
    return sum(map(len, nodes))


def read_hex(text: str) -> bytes:
    return bytes.fromhex(text[2:])


async def timed(work: Callable[[int], Any], numbers: Sequence[int]) -> dict[str, float]:
    """Milliseconds, one after the other, the answer's check included."""
    times = []
    for number in numbers:
        start = time.perf_counter()
        await work(number)
        times.append((time.perf_counter() - start) * 1e3)
    return spread(times)


def spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 3),
        "p99": round(ordered[len(ordered) * 99 // 100], 3),
        "max": round(ordered[-1], 3),
    }


# --- a ledger in a process of its own -----------------------------------------------------------------------------


class Bench:
    """What is asked of the ledger, in the process that has it open."""

    def __init__(self, chain: Chain, transactions: int) -> None:
        start = time.monotonic()
        self._ledger = Ledger.open(chain.data)
        self.opened_seconds = time.monotonic() - start
        self._chain = chain
        self._transactions = transactions
        self._fleet = Fleet(chain.tokens)
        if chain.nonces.exists():
            kept = json.loads(chain.nonces.read_bytes())
            self._fleet.nonces.update({int(index): nonce for index, nonce in kept.items()})
        settle_interpreter()

    def round(self, blocks: int) -> dict[str, Any]:
        """Blocks of readings: CPU microseconds a transaction by step, and each block's milliseconds; CPU
        seconds of making the transactions, and of the process ever, before and after."""
        watch, walls, succeeded, made = Stopwatch(time.thread_time), [], 0, 0.0
        start = time.process_time()
        for _ in range(blocks):
            before = time.thread_time()
            transactions = self._fleet.block(self._transactions)
            made += time.thread_time() - before
            begun = time.perf_counter()
            succeeded += run_block(self._ledger, transactions, watch)
            walls.append((time.perf_counter() - begun) * 1e3)
        count = blocks * self._transactions
        return {
            "steps": {step: sum(times) / count * 1e6 for step, times in watch.seconds.items()},
            "total": sum(map(sum, watch.seconds.values())) / count * 1e6,
            "block_ms": walls,
            "refused": count - succeeded,
            "made": made,
            "before": start,
            "after": time.process_time(),
        }

    def proofs(self) -> dict[str, Any]:
        """Of random tokens under the head's root, from the ledger itself."""
        chosen = random.Random(SEED + 1).sample(range(1, self._chain.tokens + 1), ASKED)
        header, times = self._ledger.head.block.header, []

        async def never() -> None: ...

        for number in chosen:
            key = Token.key(TokenId(number))
            start = time.process_time()
            (proof,) = asyncio.run(prove_records(self._ledger.store, header.height, [key], never))
            times.append((time.process_time() - start) * 1e3)
            check_record(header, key, proof.value, proof.nodes)
        return {"cpu_ms": spread(times)}

    def snapshot(self) -> dict[str, Any]:
        """The pieces that a peer would get, from the first key on, as many as there is time for."""
        rows = self._ledger.store.pin().rows(b"")
        start, cpu, count, times = time.perf_counter(), time.process_time(), 0, []
        while time.perf_counter() - start < GIVEN_SECONDS:
            begun = time.perf_counter()
            piece = len(list(islice(rows, CHUNK_ROWS_MAX)))
            if not piece:
                break
            times.append((time.perf_counter() - begun) * 1e3)
            count += piece
        return {
            "pieces": len(times),
            "piece_ms": spread(times),
            "records_per_second": round(count / (time.perf_counter() - start)),
            "cpu_us_per_record": round((time.process_time() - cpu) / count * 1e6, 2),
        }

    def memory(self) -> dict[str, int]:
        return memory_mib()

    def close(self) -> None:
        self._ledger.close()
        self._chain.nonces.write_text(json.dumps(self._fleet.nonces))


def serve(chain: Chain, transactions: int, told: Connection) -> None:
    """Answers until it is asked to close."""
    bench = Bench(chain, transactions)
    told.send(bench.opened_seconds)
    while True:
        name, arguments = told.recv()
        told.send(getattr(bench, name)(*arguments))
        if name == "close":
            return


class Remote:
    """A `Bench` in a process of its own, so that its CPU and memory are nobody else's."""

    def __init__(self, chain: Chain, transactions: int) -> None:
        context = get_context("spawn")
        self._told, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(chain, transactions, theirs))
        self._process.start()
        theirs.close()
        self.opened_seconds: float = self._told.recv()

    def ask(self, name: str, *arguments: Any) -> Any:
        """Raises: EOFError when that process has failed."""
        self._told.send((name, arguments))
        return self._told.recv()

    def __enter__(self) -> "Remote":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self.ask("close")
        self._process.join()


def compare(chains: Sequence[Chain], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rounds of blocks on each in turn; the first `--warm-rounds` do not count."""
    with ExitStack() as stack:
        remotes = [stack.enter_context(Remote(chain, options.transactions)) for chain in chains]
        results: list[dict[str, Any]] = [
            {
                "ledger_open_seconds": round(remote.opened_seconds, 3),
                "memory_mib_at_start": remote.ask("memory"),
            }
            for remote in remotes
        ]
        rounds: list[list[dict[str, Any]]] = [[] for _ in remotes]
        for number in range(options.warm_rounds + options.rounds):
            for remote, done in zip(remotes, rounds, strict=True):
                done.append(remote.ask("round", options.blocks))
            totals = ", ".join(f"{done[-1]['total']:.0f}" for done in rounds)
            log(f"round {number + 1} of {options.warm_rounds + options.rounds}: {totals} us a transaction")
        for remote, done, result in zip(remotes, rounds, results, strict=True):
            result |= summary(done[options.warm_rounds :], options)
            result["memory_mib_after_rounds"] = remote.ask("memory")
            result["proofs"] = remote.ask("proofs")
            result["snapshot"] = remote.ask("snapshot")
        if len(chains) == 2:
            large, small = ([each["total"] for each in done[options.warm_rounds :]] for done in rounds)
            ratios = [one / other for one, other in zip(large, small, strict=True)]
            results[0]["cpu_ratio_of_rounds"] = {
                "median": round(statistics.median(ratios), 3),
                "least": round(min(ratios), 3),
                "most": round(max(ratios), 3),
            }
            whole = [result["cpu_us_per_transaction"]["with_background"] for result in results]
            results[0]["cpu_ratio_with_background"] = round(whole[0] / whole[1], 3)
    return results


def summary(rounds: Sequence[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Medians of the rounds. With background: all that the process did from the first to the last, but for making
    transactions."""
    count = options.blocks * options.transactions
    spent = rounds[-1]["after"] - rounds[0]["before"] - sum(each["made"] for each in rounds)
    return {
        "transactions": count * len(rounds),
        "refused": sum(each["refused"] for each in rounds),
        "cpu_us_per_transaction": {
            **{
                step: round(statistics.median(each["steps"][step] for each in rounds), 1)
                for step in rounds[0]["steps"]
            },
            "total": round(statistics.median(each["total"] for each in rounds), 1),
            "with_background": round(spent / count / len(rounds) * 1e6, 1),
        },
        "total_by_round": [round(each["total"], 1) for each in rounds],
        "block_ms": spread([each for done in rounds for each in done["block_ms"]]),
    }


def measure(options: argparse.Namespace, parent: Path) -> dict[str, Any]:
    chains, results = [], []
    for tokens in filter(None, (options.tokens, options.beside)):
        chain = Chain(parent / str(tokens), tokens)
        chain.directory.mkdir(parents=True, exist_ok=True)
        write_document(chain, options.genesis)
        result: dict[str, Any] = {"tokens": tokens}
        if not (chain.data / "db").exists():
            log(f"making {tokens:,} tokens")
            result["making"] = make_chain(chain)
        log(f"starting a node with {tokens:,} tokens")
        result["node"] = look_at_node(chain)
        chains.append(chain)
        results.append(result)
    for result, compared in zip(results, compare(chains, options), strict=True):
        result["ledger"] = compared
    for chain, result in zip(chains, results, strict=True):
        log(f"starting a node with {chain.tokens:,} tokens again")
        result["node_after_blocks"] = look_at_node(chain)
        result["disk_mib_after_blocks"] = disk_mib(chain)
    return {"sizes": results}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--tokens", type=int, default=1_000_000, help="default %(default)s")
    parser.add_argument(
        "--beside", type=int, default=100_000, help="tokens of the other (default %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=10, help="that count (default %(default)s)")
    parser.add_argument("--warm-rounds", type=int, default=4, help="before them (default %(default)s)")
    parser.add_argument("--blocks", type=int, default=15, help="of a round (default %(default)s)")
    parser.add_argument("--transactions", type=int, default=700, help="of a block (default %(default)s)")
    parser.add_argument("--genesis", type=Path, default=Path("genesis.json"))
    parser.add_argument("--dir", type=Path, help="where the chains are and stay (default: a temporary one)")
    parser.add_argument("--out", type=Path, help="where the JSON goes (default: standard output)")
    options = parser.parse_args()
    with ExitStack() as stack:
        parent = options.dir or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="ctt-bench-scale-"))
        )
        text = json.dumps(measure(options, parent), indent=2)
    if options.out:
        options.out.write_text(text + "\n")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
