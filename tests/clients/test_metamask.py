"""What MetaMask's controllers ask for, through the parts of MetaMask that run without a browser.

The wallet itself needs a browser and a hand that clicks; it is not run here.
"""

from collections.abc import Callable
from typing import Final

import pytest

from ctt_state.crypto import address_of
from ctt_state.modules.ctt.module import NotAdmin
from tests.clients import expected
from tests.clients.expected import ALICE, BOB
from tests.clients.packages import Told, install, run_script
from tests.clients.recorder import Recorder
from tests.ledger_world import ALICE_KEY, CHAIN_ID

DONE: Final = {"status": "0x1", "type": "0x2", "isEip1559": "0x0"}


@pytest.fixture(scope="module")
def told(recorder: Recorder) -> Told:
    install()
    people = {"alice": ALICE.address, "bob": BOB.address, "permit": expected.PERMIT}
    return run_script("metamask.mjs", expected.task(recorder) | people)


def test_it_takes_the_chain_for_one_with_eip_1559(told: Told) -> None:
    assert told["network"] == {
        "chainId": hex(CHAIN_ID),
        "version": str(CHAIN_ID),
        "baseFee": "0x0",
        "balance": hex(10**24),
    }


@pytest.mark.parametrize("kind", ["send", "buy"])
def test_it_sends_and_confirms(told: Told, kind: str) -> None:
    assert told[kind] == DONE


def test_it_numbers_what_it_sends_faster_than_blocks_come(told: Told) -> None:
    assert told["several"] == {"nonces": [2, 3, 4, 5, 6], "statuses": ["0x1"] * 5}


def test_it_shows_a_token_as_a_collectible(told: Told) -> None:
    assert told["collectible"] == {
        "isErc721": True,
        "hasMetadata": True,
        "owner": ALICE.address,
        "name": "Crypto-Trading Token",
        "symbol": "CTT",
        "uri": "data:application/json;base64,",
    }


def test_it_shows_why_a_rule_refused(told: Told) -> None:
    """It wraps the node's error, whose text it shows."""
    assert (
        told["refused"].items()
        >= {
            "code": 3,
            "message": f"execution reverted: NotAdmin(caller={ALICE.address.lower()})",
            "data": "0x" + NotAdmin(address_of(ALICE_KEY)).data.hex(),
        }.items()
    )


def test_its_permit_is_that_of_every_library(told: Told) -> None:
    assert told["permit"] == "0x" + expected.permit_signature().hex()


def test_it_reads_at_the_block_that_it_saw_last(told: Told, recorder: Recorder) -> None:
    """`latest` leaves it as a height, which the node must still have the state of."""
    assert told["pinned"]
    heights = [kept.params[1] for kept in recorder.exchanges if kept.method == "eth_getBalance"]
    assert all(height.startswith("0x") for height in heights)


def test_its_traffic_is_as_published(
    told: Told, recorder: Recorder, check_traffic: Callable[[Recorder], None]
) -> None:
    check_traffic(recorder)
