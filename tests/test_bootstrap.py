"""Nodes join a real network by a snapshot: in seconds, with the same chain from there on, and able to validate."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from ctt_state.crypto import address_of, public_key
from ctt_state.genesis import development_key
from ctt_state.transaction import sign_transaction
from ctt_state.units import hex_of
from node.journal import Place, read_journal
from node.keys import load_key
from node.store import Store
from tests.cli_world import Ctt
from tests.live_network import VALIDATORS, LiveNetwork, call, wait_for
from tests.live_node import LiveNode

FIRST_PORT: Final = 9_500
EPOCH_BLOCKS: Final = 20
JOIN_SECONDS_MAX: Final = 15.0  # of which most are the machine's
LONG: Final = 3 * EPOCH_BLOCKS  # a chain that somebody joins late
TRADERS_KEY: Final = bytes.fromhex("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d")


@pytest.fixture
def ctt(capsys: pytest.CaptureFixture[str]) -> Ctt:
    return Ctt(capsys)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    directory = tmp_path_factory.mktemp("bootstrap") / "net"
    with LiveNetwork(directory, first_port=FIRST_PORT, epoch_blocks=EPOCH_BLOCKS) as network:
        send(network, nonce=0)  # which no node that joins by a snapshot has seen
        wait_for(lambda: network.height() >= LONG)
        yield network


def send(network: LiveNetwork, nonce: int) -> str:
    """The hash of a payment that is final everywhere."""
    raw = sign_transaction(
        TRADERS_KEY,
        chain_id=int(network.call("eth_chainId"), 16),
        nonce=nonce,
        gas_limit=21_000,
        to=address_of(development_key(99)),
        value=1,
    )
    sent: str = network.call("eth_sendRawTransaction", hex_of(raw))
    wait_for(
        lambda: all(
            network.call("eth_getTransactionReceipt", sent, validator=number)
            for number in range(1, VALIDATORS + 1)
        )
    )
    return sent


def peer(network: LiveNetwork, validator: int) -> tuple[str, str]:
    port = network.spare_port - VALIDATORS + validator - 1
    return "--from-peer", f"validator-{validator}=127.0.0.1:{port}"


def issue(ctt: Ctt, network: LiveNetwork, home: Path, *flags: str) -> None:
    """A certificate in the name of the directory."""
    out = ("--out", home / "tls", "--name", f"{home.parent.name}.{home.name}")
    home.mkdir(mode=0o700)
    assert ctt("ca", "issue", "--dir", network.directory / "ca", *out, *flags).code == 0


def join(ctt: Ctt, network: LiveNetwork, home: Path, *flags: object) -> int:
    """The height at which the node begins."""
    started = time.monotonic()
    result = ctt("init", "--dir", home, "--genesis", network.genesis, *flags)
    assert (result.code, result.err) == (0, ""), result
    assert time.monotonic() - started < JOIN_SECONDS_MAX
    return base_of(home)


def base_of(home: Path) -> int:
    store = Store.open(home)
    try:
        return store.base
    finally:
        store.close()


def height_of(node: LiveNode) -> int:
    return int(node.call("eth_blockNumber"), 16)


def catch_up(node: LiveNode, network: LiveNetwork) -> int:
    """Until it is where the network is now; that height."""
    height = network.height()
    wait_for(lambda: height_of(node) >= height)
    return height


def block_at(source: LiveNode | LiveNetwork, height: int) -> Any:
    return source.call("eth_getBlockByNumber", hex(height), False)


def error_of(url: str, method: str, *parameters: Any) -> str:
    with pytest.raises(AssertionError) as refusal:
        call(url, method, *parameters)
    return str(refusal.value)


@pytest.mark.slow
def test_a_follower_joins_in_seconds_and_serves_the_same_chain(
    ctt: Ctt, network: LiveNetwork, tmp_path: Path
) -> None:
    old = send_count(network)
    home = tmp_path / "follower"
    issue(ctt, network, home)

    base = join(ctt, network, home, "--follower", *peer(network, 2))

    assert base > EPOCH_BLOCKS
    with LiveNode(home) as node:
        first = catch_up(node, network)
        wait_for(lambda: height_of(node) >= first + 3)
        new = send(network, nonce=old)
        assert wait_for(lambda: node.call("eth_getTransactionReceipt", new)) == network.call(
            "eth_getTransactionReceipt", new
        )
        for height in range(base + 1, height_of(node) + 1):
            assert block_at(node, height) == block_at(network, height)
        check_pruned(node, network, base)
        balance = ("eth_getBalance", hex_of(address_of(development_key(99))), "latest")
        assert node.call(*balance) == network.call(*balance)
        assert node.call("ctt_chainStatus")["peers"] == VALIDATORS

        node.kill()
        missed = network.height() + 5
        wait_for(lambda: network.height() >= missed)
        node.restart()
        catch_up(node, network)
        assert block_at(node, missed) == block_at(network, missed)
        assert node.stop() == 0
    assert "Traceback" not in node.log()
    assert ctt("verify", "--dir", home).code == 0


def send_count(network: LiveNetwork) -> int:
    count = network.call("eth_getTransactionCount", hex_of(address_of(TRADERS_KEY)), "latest")
    return int(count, 16)


def check_pruned(node: LiveNode, network: LiveNetwork, base: int) -> None:
    """What lies below the snapshot is said not to be there, and nothing breaks over it."""
    old = network.call("eth_getLogs", {"fromBlock": "0x1", "toBlock": hex(base)})
    assert old == []
    for method, *parameters in (
        ("eth_getBlockByNumber", "0x1", False),
        ("eth_getBlockByNumber", hex(base), True),
        ("eth_getBlockReceipts", "0x1"),
        ("eth_getLogs", {"fromBlock": "0x1", "toBlock": "latest"}),
    ):
        text = error_of(node.url, method, *parameters)
        assert f"is pruned: this node has whole blocks from {base + 1} on" in text
    assert int(block_at(node, base + 1)["parentHash"], 16) == int(block_at(network, base)["hash"], 16)
    assert node.call("eth_getBlockByHash", block_at(network, 1)["hash"], False) is None
    made = next(
        found["transactions"][0]
        for height in range(1, base)
        if (found := block_at(network, height))["transactions"]
    )
    assert node.call("eth_getTransactionReceipt", made) is None
    assert node.call("eth_getBlockByNumber", "earliest", False)["number"] == hex(base + 1)
    identity = node.call("eth_newFilter", {"fromBlock": "earliest"})
    assert node.call("eth_getFilterChanges", identity) == []


@pytest.mark.slow
def test_a_new_validator_joins_by_a_snapshot_and_votes(
    ctt: Ctt, network: LiveNetwork, tmp_path: Path
) -> None:
    home, key_file = tmp_path / "validator", tmp_path / "validator.key"
    assert ctt("key", "new", key_file).code == 0
    key = load_key(key_file)
    address, consensus_key = hex_of(address_of(key)), hex_of(public_key(key))
    issue(ctt, network, home, "--validator", address)

    base = join(ctt, network, home, "--key", key_file, *peer(network, 3))

    marks = read_journal(home).marks
    header = block_at(network, base)
    assert marks.height == base
    assert marks.floor >= Place((base - 1) // EPOCH_BLOCKS, int(header["view"], 16))
    with LiveNode(home, flags=("--p2p-port", str(network.spare_port))) as node:
        catch_up(node, network)
        rpc = ("--rpc", network.url())
        proposed = ctt(
            *("authority", "propose", "--add", address, consensus_key, "--key", network.key_file(1)), *rpc
        )
        assert proposed.code == 0, proposed
        number = proposed.out.split("proposal ", 1)[1].split(":")[0]
        ready = ("ready", number, "--consensus-key", key_file, "--key", key_file)
        assert ctt("authority", *ready, *rpc).code == 0
        for voter in (2, 3):
            assert ctt("authority", "vote", number, "--key", network.key_file(voter), *rpc).code == 0
        height = network.height()

        def has_led() -> int | None:
            nonlocal height
            while height < network.height():
                height += 1
                if block_at(network, height)["miner"] == address:
                    return height
            return None

        led = wait_for(has_led)
        wait_for(lambda: height_of(node) >= led)
        assert block_at(node, led) == block_at(network, led)
        assert node.stop() == 0
    assert read_journal(home).marks.finalize > marks.floor
    assert "Traceback" not in node.log()
    assert ctt("verify", "--dir", home).code == 0


@pytest.mark.slow
def test_a_node_that_joined_by_a_snapshot_gives_one_to_the_next(
    ctt: Ctt, network: LiveNetwork, tmp_path: Path
) -> None:
    """It does not know how the sets followed from genesis, so who asks it needs a checkpoint, or asks another."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for home in (first, second, third):
        issue(ctt, network, home)
    base = join(ctt, network, first, "--follower", *peer(network, 1))
    port = network.spare_port + 1
    named = "--from-peer", f"{tmp_path.name}.first=127.0.0.1:{port}"

    with LiveNode(first, flags=("--p2p-port", str(port))) as node:
        boundary = -(-(base + 1) // EPOCH_BLOCKS) * EPOCH_BLOCKS
        wait_for(lambda: height_of(node) > boundary)
        begin = ("init", "--dir", second, "--genesis", network.genesis, "--follower")
        alone = ctt(*begin, *named)
        assert (alone.code, alone.out) == (69, "")
        assert f"epochs that ended before block {base} are not known here" in alone.err
        helped = ctt(*begin, *named, *peer(network, 4))
        assert (helped.code, "from validator-4\n" in helped.out) == (0, True)

        checkpoint = f"{boundary}:{block_at(network, boundary)['hash']}"
        result = ctt(
            *("init", "--dir", third, "--genesis", network.genesis, "--follower", *named),
            *("--checkpoint", checkpoint),
        )
        assert (result.code, f"from {tmp_path.name}.first\n" in result.out) == (0, True)
        assert node.stop() == 0
    with LiveNode(third) as node:
        height = catch_up(node, network)
        assert block_at(node, height) == block_at(network, height)
        assert node.stop() == 0
    assert ctt("verify", "--dir", third).code == 0


@pytest.mark.slow
def test_who_lost_the_database_gets_another_and_keeps_the_votes(
    ctt: Ctt, network: LiveNetwork, tmp_path: Path
) -> None:
    home, key_file = tmp_path / "validator", tmp_path / "validator.key"
    assert ctt("key", "new", key_file).code == 0
    issue(ctt, network, home)
    join(ctt, network, home, "--key", key_file, *peer(network, 1))
    marks = read_journal(home).marks
    shutil.rmtree(home / "db")
    (home / "anchor").unlink()

    join(ctt, network, home, "--key", key_file, *peer(network, 1))

    assert read_journal(home).marks == marks
    with LiveNode(home) as node:
        catch_up(node, network)
        assert node.stop() == 0
    assert ctt("verify", "--dir", home).code == 0
