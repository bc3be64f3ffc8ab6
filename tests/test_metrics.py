"""What the node tells Prometheus, who may read it, and the line of readiness."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
import yaml
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from node.datadir import Space
from node.metrics import NodeMetrics, missed_turns
from node.pulse import Lately
from rpc.access import AccessRules, Role
from rpc.discovery import METHODS
from tests.consensus_world import World, make_set
from tests.ledger_world import ALICE_KEY, BOB, finish, make_plan, sign, sign_call
from tests.live_node import LiveNode
from tests.rpc_world import RpcWorld, Served, make_config, served
from tests.test_node_troubles import idle
from tests.test_rpc_access import METER, OPERATOR, TOKENS, bearer

DOCS: Final = Path(__file__).parent.parent / "docs"
OPERATIONS: Final = DOCS / "OPERATIONS.md"
PAGES: Final = DOCS / "operations"
ROW: Final = re.compile(r"^\| `((?:ctt|process)_\w+)(?:\{([a-z, ]+)\})?` \|", re.MULTILINE)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Metric]:
    """The metrics of a running node, by name; those of counters as they are written."""
    with LiveNode(tmp_path_factory.mktemp("metrics") / "node") as node:
        while int(node.call("eth_blockNumber"), 16) < 3:
            time.sleep(0.05)
        return by_name(parse(node.read("/metrics")))


def parse(text: str) -> list[Metric]:
    return list(text_string_to_metric_families(text))


def by_name(families: Iterable[Metric]) -> dict[str, Metric]:
    return {f"{each.name}_total" if each.type == "counter" else each.name: each for each in families}


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    samples = [each for family in families.values() for each in family.samples]
    (found,) = [each.value for each in samples if each.name == name and each.labels == labels]
    return float(found)


def test_every_metric_is_documented_with_its_labels_and_no_other(told: dict[str, Metric]) -> None:
    rows = dict(ROW.findall(OPERATIONS.read_text(encoding="utf-8")))
    assert set(rows) == set(told)
    for name, family in told.items():
        used = {label for sample in family.samples for label in sample.labels} - {"quantile"}
        assert used <= set(rows[name].split(", ")), name


def test_a_node_tells_of_its_chain_its_validators_and_its_machine(told: dict[str, Metric]) -> None:
    assert value(told, "ctt_ready") == value(told, "ctt_is_validator") == value(told, "ctt_validators") == 1
    assert value(told, "ctt_head_height") >= 3
    assert value(told, "ctt_blocks_proposed_total", validator="validator-1") == value(told, "ctt_head_height")
    assert value(told, "ctt_votes_missed_total", validator="validator-1") == 0
    assert 0.2 < value(told, "ctt_block_interval_seconds", quantile="0.5") < 20
    assert 0 < value(told, "ctt_storage_free_bytes") < value(told, "ctt_storage_size_bytes")
    assert value(told, "ctt_rpc_requests_total", method="eth_blockNumber", outcome="ok") >= 2
    assert value(told, "process_resident_memory_bytes") > 10_000_000


def test_a_summary_has_all_since_the_start_and_the_quantiles_of_the_latest() -> None:
    lately = Lately(2)
    for took_ms in (900, 10, 30):
        lately.add(took_ms)
    assert (lately.count, lately.sum_ms, lately.times().count, lately.times().max_ms) == (3, 940, 2, 30)


# --- what is counted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epoch", "since", "view", "missed"),
    [
        (0, 1, 2, [0, 0, 0, 0]),
        (0, 1, 3, [0, 0, 1, 0]),
        (1, 1, 3, [0, 0, 0, 1]),
        (0, 0, 3, [0, 1, 1, 0]),
        (0, 4, 12, [1, 2, 2, 2]),
        (0, 4, 13, [2, 2, 2, 2]),
        (0, 0, 4_000_001, [1_000_000] * 4),
    ],
)
def test_a_turn_is_missed_in_each_view_between_two_final_blocks(
    epoch: int, since: int, view: int, missed: list[int]
) -> None:
    members, _ = make_set(4)
    turns = missed_turns(members, epoch, since, view)
    assert [turns[each.address] for each in members.members] == missed


def test_votes_that_do_not_come_are_missed() -> None:
    world = World(4, followers=1)
    world.run_ms(3_000)
    assert [world.machines[0].engine.votes_missed(place) for place in range(4)] == [0, 0, 0, 0]

    world.crash(3)
    world.run_ms(5_000)
    blocks = world.heights()[0]
    missed = [world.machines[0].engine.votes_missed(place) for place in range(4)]
    assert missed[:3] == [0, 0, 0]
    assert 5 < missed[3] < blocks


def test_who_is_silent_stays_so_when_an_epoch_begins() -> None:
    world = World(4, epoch_blocks=10)
    world.run_ms(1_000)
    world.crash(3)
    gone_ms = world.now_ms
    world.run_ms(20_000)

    engine = world.machines[0].engine
    assert engine.epoch >= 2
    assert engine.last_heard_ms(3) <= gone_ms + world.delay_ms
    assert all(engine.last_heard_ms(place) > world.now_ms - 5_000 for place in (1, 2))


@pytest.mark.asyncio
async def test_blocks_are_counted_as_they_become_final(tmp_path: Path) -> None:
    async with idle(tmp_path) as world:
        registry = CollectorRegistry()
        registry.register(NodeMetrics(world.node, datetime(2027, 1, 31, tzinfo=UTC)))
        ledger = world.node._ledger
        for transactions, view in (
            ([sign(ALICE_KEY, 0), sign_call(ALICE_KEY, 1, "setOperator(address,bool)", BOB, True)], 1),
            ([], 4),
        ):
            executed, _ = ledger.build(make_plan(ledger, 400, view=view), transactions)
            finish(ledger, executed)
            world.node._final.tell(executed.final)
        world.now_ms += 12_000

        told = by_name(parse(generate_latest(registry).decode()))
    assert value(told, "ctt_transactions_total", outcome="succeeded") == 1
    assert value(told, "ctt_transactions_total", outcome="failed") == 1
    assert value(told, "ctt_gas_used_total") > 21_000
    assert value(told, "ctt_block_interval_seconds", quantile="1") == 0.4
    assert value(told, "ctt_block_interval_seconds_count") == 1
    assert value(told, "ctt_turns_missed_total", validator="validator-1") == 2
    assert value(told, "ctt_blocks_proposed_total", validator="validator-1") == 2
    assert value(told, "ctt_since_final_seconds") == 12
    assert value(told, "ctt_ready") == value(told, "ctt_is_validator") == 0
    assert value(told, "ctt_peer_certificate_expiry_timestamp_seconds") == 1_801_353_600
    assert value(told, "ctt_tokens") == 20
    assert told["ctt_votes_missed_total"].samples == []


# --- the door ---------------------------------------------------------------------------------------------------------


async def get(node: Served, path: str, **headers: str) -> tuple[int, str]:
    async with node.http.get(node.url + path, headers=headers) as response:
        return response.status, await response.text()


@pytest.mark.asyncio
async def test_metrics_are_for_operators() -> None:
    """Without tokens programs on this machine are."""
    async with served() as node:
        assert (await get(node, "/metrics"))[0] == 200
    async with served(config=make_config(tokens=TOKENS)) as node:
        needed = "a token of role operator is needed: 'Authorization: Bearer TOKEN'\n"
        assert await get(node, "/metrics") == (401, needed)
        refusal = "role meter is not served here; operator is needed\n"
        assert await get(node, "/metrics", **bearer(METER)) == (403, refusal)
        status, text = await get(node, "/metrics", **bearer(OPERATOR))
        assert status == 200
        refused = by_name(parse(text))
    assert value(refused, "ctt_rpc_refused_total", reason="http_401") == 1
    assert value(refused, "ctt_rpc_refused_total", reason="http_403") == 1


@pytest.mark.asyncio
async def test_calls_are_counted_by_method_and_outcome() -> None:
    """A method that there is not is counted under no name of its own: clients could invent any number."""
    async with served(RpcWorld(), make_config(tokens=(), rules=AccessRules(quotas={Role.PUBLIC: 2}))) as node:
        node.world.room = 0
        await node.call("eth_chainId")
        await node.error("eth_invented")
        await node.error("eth_getBalance", "0x12")
        await node.post(b"[")
        submit = {"jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": ["0x"]}
        await node.post([submit, submit])
        while "rate limit" not in (await node.answer("eth_chainId")).get("error", {}).get("message", ""):
            pass
        answered = node.server._dispatcher.answered
    assert {key for key in answered if key[1] != "ok"} == {
        ("unknown", "not_found"),
        ("eth_getBalance", "invalid_params"),
        ("unknown", "malformed"),
        ("eth_sendRawTransaction", "refused"),
        ("eth_chainId", "rate_limited"),
    }
    assert answered["eth_chainId", "ok"] >= 2
    assert answered["eth_sendRawTransaction", "refused"] == 2
    assert {name for name, _ in answered} <= {*METHODS, "unknown"}


@pytest.mark.asyncio
async def test_readiness_is_a_status_and_a_line_for_anyone() -> None:
    async with served(config=make_config(tokens=(), rules=AccessRules(least=Role.METER))) as node:
        assert await get(node, "/ready") == (200, "ready height 1\n")
        node.world.syncing = True
        assert await get(node, "/ready") == (503, "syncing: the node is syncing: at block 1 of 99\n")
        async with node.http.post(node.url + "/ready") as response:
            assert response.status == 405


@pytest.mark.asyncio
async def test_each_trouble_has_its_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with idle(tmp_path) as world:
        assert world.node.trouble() is None
        world.now_ms += 12_345
        assert world.node.trouble() == "stalled: no quorum: no block has become final for 12 s"
        world.outside.height = 1_031
        assert world.node.trouble() == "syncing: the node is syncing: at block 0 of 1,031"
        world.node.stop()
        assert world.node.trouble() == "stopping: the node is stopping"
        monkeypatch.setattr(world.node.runner, "_space", Space.NO_CLIENTS)
        assert world.node.trouble() == "disk: the node is short of disk space and takes no transactions"


# --- what is built on them --------------------------------------------------------------------------------------------


def expressions() -> dict[str, str]:
    """Of the dashboard's panels and of the alerts, by where they are."""
    board = json.loads((PAGES / "grafana.json").read_text(encoding="utf-8"))
    rules = yaml.safe_load((PAGES / "alerts.yml").read_text(encoding="utf-8"))
    return {
        f"panel {panel['title']} {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel.get("targets", ())
    } | {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}


def test_dashboard_and_alerts_ask_for_metrics_that_there_are(told: dict[str, Metric]) -> None:
    samples = {sample.name for family in told.values() for sample in family.samples} | set(told)
    asked = {where: set(re.findall(r"\b(?:ctt|process)_\w+", text)) for where, text in expressions().items()}
    assert len(asked) > 50
    assert {where: names - samples for where, names in asked.items() if names - samples} == {}
    assert [where for where, names in asked.items() if not names] == ["CttNodeDown"]


def test_each_alert_is_explained() -> None:
    """One that nobody knows what to do about is noise."""
    text = OPERATIONS.read_text(encoding="utf-8")
    alerts = [name for name in expressions() if name.startswith("Ctt")]
    assert [name for name in alerts if f"`{name}`" not in text] == []


def test_prometheus_takes_rules_and_panels_and_fires_when_it_should(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    panels = [
        {
            "record": "panel:expression",
            "expr": text.replace("$__rate_interval", "1m"),
            "labels": {"panel": where},
        }
        for where, text in expressions().items()
    ]
    rules = tmp_path / "panels.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": panels}]}))
    for command in (("check", "rules", rules), ("test", "rules", Path(__file__).parent / "alerts.test.yml")):
        done = subprocess.run([promtool, *map(str, command)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
