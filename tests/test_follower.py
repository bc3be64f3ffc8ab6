"""A follower of a real network: it comes later, checks everything, serves clients, and never has a vote."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from ctt_state.crypto import address_of
from ctt_state.genesis import development_key, load_genesis
from ctt_state.transaction import sign_transaction
from ctt_state.units import hex_of
from ctt_state.votes import Certificate, check_certificate
from node.cli.main import main
from node.exits import Exit
from node.store import Store
from tests.live_network import VALIDATORS, LiveNetwork, wait_for
from tests.live_node import LiveNode

FIRST_PORT: Final = 9_400
FIRST_HEIGHT: Final = 30  # of the network when the follower comes: one epoch and a half
# The second of the development accounts; the key is that of every Ethereum tool's.
TRADERS_KEY: Final = bytes.fromhex("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d")


def ctt(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    directory = tmp_path_factory.mktemp("follower") / "net"
    with LiveNetwork(directory, first_port=FIRST_PORT, period_ms=100) as network:
        yield network


@pytest.fixture
def home(network: LiveNetwork, tmp_path: Path) -> Path:
    """A follower's directory, with a certificate that names no validator."""
    home = tmp_path / "follower"
    assert ctt("init", "--dir", home, "--genesis", network.genesis, "--follower") == 0
    authority = ("--dir", network.directory / "ca")
    assert ctt("ca", "issue", *authority, "--out", home / "tls", "--name", f"follower-{tmp_path.name}") == 0
    return home


def height_of(node: LiveNode) -> int:
    return int(node.call("eth_blockNumber"), 16)


def block_at(source: LiveNode | LiveNetwork, height: int) -> Any:
    return source.call("eth_getBlockByNumber", hex(height), False)


def catch_up(node: LiveNode, height: int) -> None:
    wait_for(lambda: height_of(node) >= height)


@pytest.mark.slow
def test_a_follower_that_comes_later_has_the_same_chain_and_serves_it(
    network: LiveNetwork, home: Path
) -> None:
    wait_for(lambda: network.height() >= FIRST_HEIGHT)

    with LiveNode(home) as node:
        catch_up(node, FIRST_HEIGHT)
        height = height_of(node)
        catch_up(node, height + 5)
        wait_for(lambda: network.height() >= height + 5)
        for each in range(height + 6):
            assert block_at(node, each) == block_at(network, each)
        status = node.call("ctt_chainStatus")
        assert (status["peers"], status["syncing"]) == (VALIDATORS, False)
        assert node.call("eth_syncing") is False

        # What clients send to it comes into a block, and everyone sees the same of it.
        receiver = hex_of(address_of(development_key(99)))
        transaction = sign_transaction(
            TRADERS_KEY,
            chain_id=int(node.call("eth_chainId"), 16),
            nonce=0,
            gas_limit=21_000,
            to=bytes.fromhex(receiver[2:]),
            value=7,
        )
        sent = node.call("eth_sendRawTransaction", hex_of(transaction))
        receipt = wait_for(lambda: node.call("eth_getTransactionReceipt", sent))
        assert receipt["status"] == "0x1"
        assert receipt == wait_for(lambda: network.call("eth_getTransactionReceipt", sent))
        assert node.call("eth_getBalance", receiver, "latest") == "0x7"
        assert node.stop() == 0

    assert "no key: this node follows, and never votes" in node.log()
    assert "Traceback" not in node.log()


@pytest.mark.slow
def test_a_follower_has_no_vote(network: LiveNetwork, home: Path) -> None:
    """Every certificate it holds is the validators' alone, and no block is its own."""
    genesis = load_genesis(network.genesis.read_bytes())
    keys, addresses = genesis.validator_set.keys, {hex_of(each.address) for each in genesis.validators}
    with LiveNode(home) as node:
        catch_up(node, FIRST_HEIGHT)
        assert {block_at(node, height)["miner"] for height in range(1, FIRST_HEIGHT)} <= addresses
        assert node.stop() == 0

    store = Store.open(home)
    kept = [store.certificate(height) for height in range(1, store.head.height + 1)]
    store.close()
    certificates = [Certificate.decode(each) for each in kept if each is not None]
    assert certificates
    for certificate in certificates:
        check_certificate(certificate, keys, genesis.hash)
        assert max(signer for signer, _ in certificate.signatures) < VALIDATORS
    assert not (home / "validator.key").exists()
    assert not (home / "votes").exists()


@pytest.mark.slow
def test_a_killed_follower_goes_on_where_it_was(network: LiveNetwork, home: Path) -> None:
    with LiveNode(home) as node:
        catch_up(node, FIRST_HEIGHT)
        node.kill()
        missed = network.height() + 10
        wait_for(lambda: network.height() >= missed)

        node.restart()

        assert height_of(node) >= FIRST_HEIGHT
        catch_up(node, missed)
        for height in range(FIRST_HEIGHT - 5, missed + 1):
            assert block_at(node, height) == block_at(network, height)
        assert node.stop() == 0

    assert ctt("verify", "--dir", home) == 0


def test_a_follower_needs_a_certificate(
    network: LiveNetwork, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who runs which node is the consortium's business, also of nodes without a vote."""
    assert ctt("init", "--dir", tmp_path / "node", "--genesis", network.genesis, "--follower") == 0
    capsys.readouterr()

    assert ctt("run", "--dir", tmp_path / "node") == Exit.MISSING
    assert "no certificate to show to peers" in capsys.readouterr().err
