"""JSON-RPC's envelope: strict JSON within a budget, exact errors, batches, ids and notifications."""

import asyncio
import json
import logging
import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctt_state.errors import NonceTooLow, StateUnready
from rpc.discovery import METHODS
from rpc.door import Caller
from rpc.errors import ParseError, TryLater
from rpc.jsonrpc import STATE_TRIES, Dispatcher, EnvelopeLimits, parse_json
from rpc.jsontext import Json, RawJson
from rpc.methods import Registry, join
from rpc.params import ANYTHING, BOOL, QUANTITY, Param
from tests.rpc_world import RpcWorld, served

TABLE = Registry()
handed_over: list[int] = []
PLACES = 2


@TABLE.method("echo", Param("value", ANYTHING, None))
def echo(caller: object, value: Json) -> Json:
    """Gives its argument back."""
    return value


@TABLE.method("flag", Param("number", QUANTITY), Param("flag", BOOL, False))
def flag(caller: object, number: int, given: bool) -> Json:
    """Gives both back."""
    return [number, given]


@TABLE.method("wait")
async def wait(caller: object) -> RawJson:
    """Answers later."""
    await asyncio.sleep(0)
    return RawJson('"later"')


@TABLE.method("big")
def big(caller: object) -> str:
    """A large result."""
    return "x" * 600


@TABLE.method("broken")
def broken(caller: object) -> Json:
    """Has a mistake."""
    raise KeyError("secret")


@TABLE.method("refused")
def refused(caller: object) -> Json:
    """Is refused by the ledger."""
    raise NonceTooLow(next_nonce=5, nonce=0)


async def add_many(caller: object, calls: Sequence[Sequence[Any]]) -> list[Json | Exception]:
    handed_over.append(len(calls))
    return [TryLater("no 3") if number == 3 else number for (number,) in calls]


@TABLE.method("add", Param("number", QUANTITY), many=add_many)
async def add(caller: object, number: int) -> Json:
    """One of what `add_many` does."""
    handed_over.append(1)
    return number


pieces: list[str] = []


@TABLE.method("recall", Param("pieces", QUANTITY))
def recall(caller: object, count: int) -> Json:
    """Needs so many pieces of work before, each time that it is run."""

    def work() -> bool:
        pieces.append("done")
        return len(pieces) % 3 == 0

    if len(pieces) < count:
        raise StateUnready(work)
    return len(pieces)


def check_places(caller: object, count: int) -> None:
    if count > PLACES:
        raise TryLater(f"{PLACES} places")


async def sit_many(caller: object, calls: Sequence[Sequence[Any]]) -> list[Json]:
    handed_over.append(len(calls))
    check_places(caller, len(calls))
    return [who for (who,) in calls]


@TABLE.method("sit", Param("who", QUANTITY), many=sit_many, room=check_places)
async def sit(caller: object, who: int) -> Json:
    """Has two places."""
    return who


def answer_text(
    body: bytes,
    limits: EnvelopeLimits | None = None,
    clock: Callable[[], float] = lambda: 0.0,
) -> Any:
    dispatcher = Dispatcher(TABLE.methods, limits or EnvelopeLimits(), clock)
    unread = dispatcher.unread(body)
    refusal = unread.refuse(None) if unread else None
    return refusal or asyncio.run(dispatcher.answer(body, None))


def answer(body: Any, **options: Any) -> Any:
    text = answer_text(body if isinstance(body, bytes) else json.dumps(body).encode(), **options)
    return None if text is None else json.loads(text)


def request(method: str, *params: Json, **members: Json) -> dict[str, Json]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params), **members}


# --- JSON ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (b"", -32700, r"parse error at byte 0: "),
        (b"{", -32700, r"parse error at byte 1: "),
        (b'{"a":1,}', -32700, r"parse error at byte 7: |parse error at byte 6: "),
        (b'{"a":1} // x', -32700, r"parse error at byte 8: "),
        (b"{} {}", -32700, r"parse error at byte 3: "),
        (b'{"jsonrpc":NaN}', -32700, r"parse error: NaN is not JSON"),
        (b"[Infinity]", -32700, r"parse error: Infinity is not JSON"),
        (b"[-Infinity]", -32700, r"parse error: -Infinity is not JSON"),
        (b"[1e999]", -32700, r"out of range"),
        (b"\xff\xfe{\x00}\x00", -32700, r"parse error at byte 0: not UTF-8"),
        ('{"a":1}'.encode("utf-16-le"), -32700, r"parse error at byte 1: "),
        (b"\xef\xbb\xbf{}", -32700, r"parse error at byte 0: "),
        (b'{"m":"\\ud800"}', -32700, r"parse error at byte 6: lone surrogate"),
        (b'{"m":"\\udc00\\ud800"}', -32700, r"parse error at byte 6: lone surrogate"),
        (b'{"m":"\xc3\x28"}', -32700, r"parse error at byte 6: not UTF-8"),
        ('{"ü":x'.encode(), -32700, r"parse error at byte 6: "),
        (b'{"m":"a\nb"}', -32700, r"parse error at byte 7: "),
        (b"[01]", -32700, r"parse error at byte "),
        (b"[" * 33 + b"]" * 33, -32700, r"nesting deeper than 32"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, -32700, r"nesting deeper than 32"),
        (b"[" * 200_000, -32700, r"nesting deeper than 32"),
        (b"[" + b"1" * 79 + b"]", -32700, r"number longer than 78 digits"),
        (b"[0." + b"1" * 79 + b"]", -32700, r"number longer than 78 digits"),
        (b"[" + b"0," * 10_000 + b"0]", -32700, r"more than 10,000 values"),
        (b'{"method":1,"method":2}', -32600, r"member 'method' appears twice"),
        (b'{"params":[{"to":1,"to":1}]}', -32600, r"member 'to' appears twice"),
        (b"1", -32600, r"expected an object or an array"),
        (b'"x"', -32600, r"expected an object or an array"),
        (b"null", -32600, r"expected an object or an array"),
        (b"true", -32600, r"expected an object or an array"),
    ],
)
def test_what_is_not_one_json_value_is_refused_as_a_whole(body: bytes, code: int, text: str) -> None:
    reply = answer(body)
    assert (reply["jsonrpc"], reply["id"], reply["error"]["code"]) == ("2.0", None, code)
    assert re.search(text, reply["error"]["message"]), reply


@pytest.mark.parametrize(
    "body",
    [b"[" * 1_000_000, b'{"a":' * 200_000, b'"[' * 500_000, b'["' + b"\\" * 1_000_000, b"]" * 1_000_000,
     b"}{" * 500_000, b"[[]" * 300_000, b'"[",' * 250_000, b"[" * 31 + b"[],{}," * 170_000],
    ids=lambda body: body[:8].decode(),
)  # fmt: skip
def test_hostile_json_is_refused_in_little_time_whatever_the_recursion_limit(body: bytes) -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    started = time.perf_counter()
    try:
        with pytest.raises(ParseError):
            parse_json(body)
    finally:
        sys.setrecursionlimit(limit)
    assert time.perf_counter() - started < 1


def test_brackets_in_strings_do_not_nest() -> None:
    text = '"' + "[{" * 50_000 + '\\""'
    assert parse_json(f"[{text},{text}]".encode()) == ["[{" * 50_000 + '"'] * 2


def test_the_limits_of_json_are_accepted() -> None:
    assert parse_json(b"[" * 32 + b"]" * 32)
    assert parse_json(b"[" + b"9" * 78 + b"]") == [int("9" * 78)]
    assert len(parse_json(b"[" + b"0," * 9_998 + b"0]")) == 9_999  # type: ignore[arg-type]  # a list
    assert parse_json(b'["\\ud83d\\ude00 \\\\ud800 \\u00fc"]') == ["😀 \\ud800 ü"]


# --- the request ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "code", "text", "identity"),
    [
        ({"jsonrpc": "1.0"}, -32600, 'member jsonrpc must be "2.0"', 1),
        ({"jsonrpc": 2.0}, -32600, 'member jsonrpc must be "2.0"', 1),
        ({"method": 5}, -32600, "member method must be a string", 1),
        ({"method": None}, -32600, "member method must be a string", 1),
        ({"method": ""}, -32600, "member method must be a string", 1),
        ({"method": "m" * 65}, -32600, "method is longer than 64 characters", 1),
        ({"method": "foo"}, -32601, "the method foo does not exist/is not available", 1),
        ({"id": {}}, -32600, "id must be a string, an integer or null", None),
        ({"id": []}, -32600, "id must be a string, an integer or null", None),
        ({"id": True}, -32600, "id must be a string, an integer or null", None),
        ({"id": 1.5}, -32600, "id must be a string, an integer or null", None),
        ({"id": "é" * 129}, -32600, "id is longer than 256 bytes", None),
        ({"params": "x"}, -32602, "params must be an array or object", 1),
        ({"params": 5}, -32602, "params must be an array or object", 1),
        ({"params": []}, -32602, r"missing params\[0\]", 1),
        ({"params": [None]}, -32602, r"missing params\[0\]", 1),
        ({"params": {}}, -32602, r"missing params\.number", 1),
        ({"params": {"number": "0x1", "x": 1}}, -32602, "unknown parameter 'x'", 1),
        ({"params": ["0x1", True, 1]}, -32602, "too many parameters: got 3, at most 2", 1),
        ({"params": ["0x1", 1]}, -32602, r"params\[1\]: 1 is not true or false", 1),
    ],
)
def test_a_bad_request_is_told_why(members: dict[str, Json], code: int, text: str, identity: Json) -> None:
    reply = answer(request("flag", "0x1") | members)
    assert (reply["id"], reply["error"]["code"]) == (identity, code)
    assert re.search(text, reply["error"]["message"]), reply


def test_members_must_be_there() -> None:
    for absent in ("jsonrpc", "method"):
        item = request("flag", "0x1")
        del item[absent]
        assert answer(item)["error"]["code"] == -32600


@pytest.mark.parametrize(
    "identity", [0, 1, -1, 2**53, 9_007_199_254_740_993, 10**77, "", "a", 'é\n"', "6f1d0c6e-6b4f-4b56", None]
)
def test_ids_are_echoed(identity: Json) -> None:
    assert answer(request("echo", 1, id=identity)) == {"jsonrpc": "2.0", "id": identity, "result": 1}


def test_params_may_be_left_out_or_named() -> None:
    item = request("echo")
    del item["params"]
    assert answer(item)["result"] is None
    assert answer(item | {"params": None})["result"] is None
    assert answer(request("flag") | {"params": {"flag": True, "number": "0x2"}})["result"] == [2, True]
    assert answer(request("flag", "0x2", None))["result"] == [2, False]


def test_unknown_members_are_ignored() -> None:
    assert answer(request("echo", 1, extra=[]))["result"] == 1


def test_a_notification_runs_and_says_nothing() -> None:
    handed_over.clear()
    for params in (["0x1"], ["bad"]):
        item = request("add") | {"params": params}
        del item["id"]
        assert answer(item) is None
        assert answer([item, item]) is None
    assert handed_over == [1, 2]


def test_a_method_may_answer_later_and_with_json_text() -> None:
    assert answer(request("wait"))["result"] == "later"


def test_a_past_state_is_worked_out_before_the_method_is_run_again() -> None:
    pieces.clear()
    assert answer(request("recall", "0x3"))["result"] == 3
    pieces.clear()
    assert answer([request("recall", "0x6"), request("echo", 1)])[0]["result"] == 6


def test_a_past_state_that_is_never_ready_is_given_up() -> None:
    pieces.clear()
    error = answer(request("recall", "0xff"))["error"]
    assert (error["code"], error["message"]) == (
        -32005,
        "overloaded: the states of too many past blocks are asked for",
    )
    assert len(pieces) == 3 * STATE_TRIES


def test_the_ledgers_refusals_keep_their_words() -> None:
    assert answer(request("refused"))["error"] == {
        "code": -32000,
        "message": "nonce too low: next nonce 5, tx nonce 0",
    }


def test_our_own_mistakes_tell_the_client_a_number_and_the_log_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        error = answer(request("broken"))["error"]
    assert error["code"] == -32603
    incident = re.fullmatch(r"internal error, incident ([0-9a-f]{8})", error["message"])
    assert incident and incident[1] in caplog.text and "secret" in caplog.text


# --- batches -------------------------------------------------------------------------------------------------------


def test_an_empty_batch_gets_one_error() -> None:
    reply = answer([])
    assert (reply["id"], reply["error"]["code"]) == (None, -32600)


def test_a_long_batch_gets_one_error() -> None:
    assert len(answer([request("echo", 1)] * 100)) == 100
    reply = answer([request("echo", 1)] * 500)
    assert reply["error"] == {"code": -32600, "message": "batch of 500; limit 100"}


def test_each_item_of_a_batch_is_answered() -> None:
    replies = answer(
        [request("echo", 1, id="a"), 1, [], {"x": 1}, request("foo", id=2), request("wait", id=3)]
    )
    assert [(r["id"], r.get("result"), r.get("error", {}).get("code")) for r in replies] == [
        ("a", 1, None),
        (None, None, -32600),
        (None, None, -32600),
        (None, None, -32600),
        (2, None, -32601),
        (3, "later", None),
    ]


def test_neighbours_of_one_method_are_handed_over_together() -> None:
    handed_over.clear()
    adds = [request("add", hex(number), id=number) for number in range(5)]
    replies = answer([*adds, request("add", "bad", id=9), request("echo", 7, id=8), *adds[:2]])
    assert handed_over == [5, 2]
    assert [r.get("result", r.get("error", {}).get("message")) for r in replies[:5]] == [0, 1, 2, "no 3", 4]
    assert [r["id"] for r in replies] == [0, 1, 2, 3, 4, 9, 8, 0, 1]


def sitting(*ids: Json) -> list[dict[str, Json]]:
    return [request("sit", "0x1", id=identity) for identity in ids]


@given(
    st.lists(
        st.none() | st.integers(-(2**63), 2**64) | st.text(max_size=20), min_size=PLACES + 1, max_size=9
    ),
    st.booleans(),
)
def test_a_batch_without_room_gets_one_answer_read_or_not(ids: list[Json], is_ascii: bool) -> None:
    refusal = TryLater(f"{PLACES} places").to_json()
    assert answer(json.dumps(sitting(*ids), ensure_ascii=is_ascii).encode()) == [
        {"jsonrpc": "2.0", "id": each, "error": refusal} for each in ids
    ]


def test_a_batch_without_room_is_not_read() -> None:
    handed_over.clear()
    calls = [request("sit", "no quantity", id=number) for number in (1, 2, 3)]
    assert [each["error"]["message"] for each in answer(calls)] == [f"{PLACES} places"] * 3
    assert [each["error"]["code"] for each in answer(calls[:2])] == [-32602] * 2
    assert handed_over == []


def test_a_batch_that_stands_in_line_has_its_room_already() -> None:
    dispatcher = Dispatcher(TABLE.methods, EnvelopeLimits(), lambda: 0.0)
    first, second = (dispatcher.unread(json.dumps(sitting(*ids)).encode()) for ids in ((1, 2), (3,)))
    assert first and second and second.refuse(None) is None
    with first:
        assert [each["id"] for each in json.loads(second.refuse(None) or "[]")] == [3]
    assert second.refuse(None) is None


@pytest.mark.parametrize(
    "more",
    [
        request("echo", 7, id=4),
        {"jsonrpc": "2.0", "method": "sit", "params": ["0x1"]},
        request("sit", "0x1", id=1.5),
        request("sit", {"id": 4}, id=5),
        request("sit", "0x1", id="\\"),
        request("sit", "0x1", id="é"),
    ],
)
def test_a_batch_with_anything_else_in_it_is_read(more: dict[str, Json]) -> None:
    handed_over.clear()
    replies = answer([*sitting(1, 2, 3), more])
    assert [(each["id"], each["error"]["code"]) for each in replies[:3]] == [
        (each, -32005) for each in (1, 2, 3)
    ]
    assert handed_over
    if more["method"] == "echo":
        assert replies[3]["result"] == 7


def test_a_batch_stops_at_the_reply_limit() -> None:
    replies = answer([request("big", id=n) for n in range(4)], limits=EnvelopeLimits(reply_bytes_max=1_500))
    assert ["result" in reply for reply in replies] == [True, True, False, False]
    assert replies[3]["error"] == {"code": -32005, "message": "batch stopped: reply limit 1,500 bytes"}


def test_a_batch_stops_at_the_time_limit() -> None:
    ticks = iter(range(0, 1_000, 4))
    replies = answer([request("echo", n) for n in range(5)], clock=lambda: float(next(ticks)))
    assert ["result" in reply for reply in replies] == [True, True, True, False, False]
    assert replies[4]["error"] == {"code": -32005, "message": "batch stopped: time limit 10 s"}


def test_a_reply_above_the_limit_names_both_and_is_not_to_be_tried_again() -> None:
    error = answer(request("big"), limits=EnvelopeLimits(reply_bytes_max=500))["error"]
    assert error["code"] == -32000 and re.fullmatch(r"reply of 6\d\d bytes; limit 500", error["message"])


def test_a_method_is_declared_once() -> None:
    with pytest.raises(ValueError, match="echo is declared twice"):
        TABLE.method("echo")(echo)
    with pytest.raises(ValueError, match="is declared twice"):
        join(TABLE, TABLE)


def test_every_public_method_says_what_it_does() -> None:
    for method in METHODS.values():
        assert method.description.strip().endswith("."), method.name
        assert len({param.name for param in method.params}) == len(method.params)


# --- anything ------------------------------------------------------------------------------------------------------

HEX = st.sampled_from(
    [
        "0x",
        "0x0",
        "0x1",
        "0x01",
        "0x" + "11" * 20,
        "0x" + "22" * 32,
        "latest",
        "logs",
        "0x" + "00" * 18 + "c700",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | HEX
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["to", "from", "data", "value", "gas", "topics", "address", "fromBlock"]), inner
        )
    ),
    max_leaves=8,
)
REQUESTS = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": st.sampled_from([*sorted(METHODS), "nothing"])},
    optional={"id": VALUES, "params": st.lists(VALUES, max_size=4) | VALUES},
)


def run_real(work: Callable[[Dispatcher, Any], Awaitable[None]]) -> None:
    """Against the real methods over a world, without the sockets."""

    async def run() -> None:
        async with served(RpcWorld()) as node:
            session = node.server.door.subscriptions.open(node.server.config.limits.subscriptions)
            await work(node.server._dispatcher, Caller(node.server.door, "test", session))

    asyncio.run(run())


def check_reply(text: str | None) -> None:
    """JSON-RPC's form, and never an internal error."""
    if text is None:
        return
    replies = json.loads(text)
    for reply in replies if isinstance(replies, list) else [replies]:
        assert reply["jsonrpc"] == "2.0" and "id" in reply
        assert ("result" in reply) != ("error" in reply)
        if "error" in reply:
            assert isinstance(reply["error"]["code"], int) and isinstance(reply["error"]["message"], str)
            assert reply["error"]["code"] != -32603, reply


@settings(max_examples=40, deadline=None)
@given(
    bodies=st.lists(st.binary(max_size=200) | st.text(max_size=100).map(str.encode), min_size=20, max_size=40)
)
def test_any_bytes_get_a_json_rpc_answer(bodies: list[bytes]) -> None:
    async def work(dispatcher: Dispatcher, caller: Any) -> None:
        for body in bodies:
            check_reply(await dispatcher.answer(body, caller))

    run_real(work)


@settings(max_examples=60, deadline=None)
@given(items=st.lists(REQUESTS | VALUES, min_size=10, max_size=40))
def test_any_request_gets_a_json_rpc_answer(items: list[Any]) -> None:
    async def work(dispatcher: Dispatcher, caller: Any) -> None:
        for item in [*items, items]:
            check_reply(await dispatcher.answer(json.dumps(item).encode(), caller))

    run_real(work)
