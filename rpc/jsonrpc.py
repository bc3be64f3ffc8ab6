"""JSON-RPC 2.0: from the bytes of a request or a batch to the text of the reply. No sockets here.

JSON is read strictly and within a budget. What cannot be read as a whole gets one error with id null; in a batch each
bad item gets its own. Ids are echoed as they came. A request without an id is a notification: it runs, and nothing is
said.
"""

import json
import logging
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from ctt_state.errors import BlockPruned, InvalidTransaction, NotTakenNow, StatePruned, StateUnready
from rpc.access import LOCAL, Client
from rpc.errors import (
    InternalError,
    InvalidParams,
    InvalidRequest,
    MethodNotFound,
    ParseError,
    RateLimited,
    Refused,
    RpcError,
    TryLater,
)
from rpc.jsontext import Json, RawJson, dumps
from rpc.methods import Method
from rpc.params import bind
from rpc.turns import Turns

DEPTH_MAX: Final = 32
VALUES_MAX: Final = 10_000
NUMBER_DIGITS_MAX: Final = 78  # of 2**256
METHOD_CHARS_MAX: Final = 64
ID_BYTES_MAX: Final = 256
STATE_TRIES: Final = 3  # while others' past states push this one's out
BODY_BYTES_PER_UNIT: Final = 16_384  # to read them costs about as much as a cheap call

_log = logging.getLogger(__name__)


# In a batch whose calls have no object among their parameters, each of these is a call's.
_METHOD_MEMBER: Final = b'"method"'
_ID_MEMBER: Final = re.compile(rb'"id"\s*:\s*(-?[0-9]{1,20}|"[^"\\\x00-\x1f\x80-\xff]{0,256}"|null)\s*[,}]')


class _NoId(Enum):
    NO_ID = "no id"


NO_ID: Final = _NoId.NO_ID

Id = Json | _NoId


@dataclass(frozen=True, slots=True)
class EnvelopeLimits:
    """What one request may ask for."""

    batch_items_max: int = 100
    batch_s_max: float = 10.0
    reply_bytes_max: int = 10_000_000
    # At work at once, for each and for all clients without reserved places: signatures of 10,000 transactions wait at
    # most to be checked.
    client_calls_max: int = 2_000
    ordinary_calls_max: int = 7_000


class Call(NamedTuple):
    """A request as read: what to run, or the fault to answer with."""

    id: Id
    method: Method | None
    arguments: list[Any]
    fault: RpcError | None = None


# --- reading -------------------------------------------------------------------------------------------------------


def parse_json(body: bytes) -> Json:
    """The value in `body`. Raises: ParseError with the byte; InvalidRequest for a member that appears twice."""
    try:
        text = body.decode()
    except UnicodeDecodeError as fault:
        raise ParseError(f"parse error at byte {fault.start}: not UTF-8") from None
    _check_depth(body, text)
    try:
        value: Json = _DECODER.decode(text)
    except json.JSONDecodeError as fault:
        at = len(text[: fault.pos].encode())
        raise ParseError(f"parse error at byte {at}: {fault.msg}") from None
    _check_escapes(text)
    _check_count(value, text)
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"member {twice[:METHOD_CHARS_MAX]!r} appears twice")
    return members


def _parse_int(digits: str) -> int:
    if len(digits) > NUMBER_DIGITS_MAX:
        raise ParseError(f"number longer than {NUMBER_DIGITS_MAX} digits")
    return int(digits)


def _parse_float(digits: str) -> float:
    if len(digits) > NUMBER_DIGITS_MAX:
        raise ParseError(f"number longer than {NUMBER_DIGITS_MAX} digits")
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ParseError(f"number {digits} is out of range")
    return number


def _refuse_constant(name: str) -> float:
    raise ParseError(f"parse error: {name} is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_members,
    parse_int=_parse_int,
    parse_float=_parse_float,
    parse_constant=_refuse_constant,
)

_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
# A string, closed or not, or a bracket; possessive, so that no text takes more than linear time.
_TOKEN: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)

# In valid JSON a backslash always starts an escape, so reading escape after escape from the left is exact.
_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F])|.)"
)


def _check_escapes(text: str) -> None:
    """Half of a surrogate pair is no character."""
    if "\\u" not in text:
        return
    for escape in _ESCAPE.finditer(text):
        if escape["lone"]:
            at = len(text[: escape.start()].encode())
            raise ParseError(f"parse error at byte {at}: lone surrogate")


def _check_depth(body: bytes, text: str) -> None:
    """Before the parser runs, as it recurses: deep nesting would end the process where the recursion limit is high."""
    skeleton = body.translate(None, _NO_BRACKETS)
    if len(skeleton) <= 2 * DEPTH_MAX:
        return
    if len(skeleton) <= 2 * VALUES_MAX:
        for _ in range(DEPTH_MAX):
            skeleton = skeleton.replace(b"[]", b"").replace(b"{}", b"")
        if not skeleton:
            return
    _check_depth_exactly(text)


def _check_depth_exactly(text: str) -> None:
    """Token by token, where strings hold brackets or brackets do not match."""
    depth = 0
    for count, token in enumerate(_TOKEN.finditer(text)):
        first = text[token.start()]
        depth += (first in "[{") - (first in "]}")
        if depth > DEPTH_MAX:
            raise ParseError(f"nesting deeper than {DEPTH_MAX}")
        if count > 3 * VALUES_MAX:  # a value has at most a name, a start and an end
            raise ParseError(f"more than {VALUES_MAX:,} values")


def _check_count(value: Json, text: str) -> None:
    """A text with few brackets and commas needs no walk."""
    if text.count("[") + text.count("{") + text.count(",") < VALUES_MAX // 2:
        return
    level, values = [value], 0
    while level:
        values += len(level)
        if values > VALUES_MAX:
            raise ParseError(f"more than {VALUES_MAX:,} values")
        level = [inner for item in level if isinstance(item, list | dict) for inner in _contents(item)]


def _contents(container: list[Json] | dict[str, Json]) -> Iterator[Json]:
    return iter(container if isinstance(container, list) else container.values())


def read_call(item: Json, methods: Mapping[str, Method], client: Client = LOCAL) -> Call:
    """One request, charged to the client. A fault of the envelope itself is answered with its id if that is readable,
    else with null."""
    call = _read_call(item, methods, client)
    try:
        client.charge(1 if call.method is None else call.method.cost)
    except RateLimited as fault:
        return Call(call.id, call.method, [], fault)
    return call


def _read_call(item: Json, methods: Mapping[str, Method], client: Client) -> Call:
    if not isinstance(item, dict):
        return Call(None, None, [], InvalidRequest("expected an object"))
    request_id: Id = item.get("id", NO_ID)
    try:
        _check_id(request_id)
    except InvalidRequest as fault:
        return Call(None, None, [], fault)
    try:
        name = _check_envelope(item)
    except InvalidRequest as fault:
        return Call(None if request_id is NO_ID else request_id, None, [], fault)
    method = methods.get(name)
    if method is None or client.role < method.role:
        return Call(request_id, None, [], MethodNotFound(name))
    try:
        return Call(request_id, method, bind(method.params, item.get("params")))
    except InvalidParams as fault:
        return Call(request_id, method, [], fault)


def _check_id(request_id: Id) -> None:
    if isinstance(request_id, str) and len(request_id.encode()) > ID_BYTES_MAX:
        raise InvalidRequest(f"id is longer than {ID_BYTES_MAX} bytes")
    if isinstance(request_id, bool | float | list | dict):
        raise InvalidRequest("id must be a string, an integer or null")


def _check_envelope(item: dict[str, Json]) -> str:
    """The method's name."""
    if item.get("jsonrpc") != "2.0":
        raise InvalidRequest('member jsonrpc must be "2.0"')
    name = item.get("method")
    if not isinstance(name, str) or not name:
        raise InvalidRequest("member method must be a string")
    if len(name) > METHOD_CHARS_MAX:
        raise InvalidRequest(f"method is longer than {METHOD_CHARS_MAX} characters")
    return name


# --- answering -----------------------------------------------------------------------------------------------------


@dataclass
class _Roomed:
    """A method whose calls need room."""

    name: str
    member: bytes  # as a request names it
    check_room: Callable[[Any, int], None]
    in_line: int = 0  # calls that were let in and not begun


class Unread:
    """A batch of calls that need room, before it is read: under a flood, to read them all would cost more than to run
    those that are taken. Those that stand in line for their turn (`with`) have their room already."""

    def __init__(
        self, method: _Roomed, body: bytes, count: int, answered: "Counter[tuple[str, str]]"
    ) -> None:
        self._method = method
        self._body = body
        self._count = count
        self._answered = answered

    def refuse(self, caller: object) -> str | None:
        """The reply when there is no room."""
        try:
            self._method.check_room(caller, self._method.in_line + self._count)
        except Exception as fault:  # noqa: BLE001  as for a call that is run
            ids = _ID_MEMBER.findall(self._body)
            if len(ids) != self._count:
                return None
            error = _as_error(fault, self._method.name)
            self._answered[self._method.name, error.outcome] += self._count
            return _refuse_all(ids, error)
        return None

    def __enter__(self) -> None:
        self._method.in_line += self._count

    def __exit__(self, *_: object) -> None:
        self._method.in_line -= self._count


class Dispatcher:
    """Answers requests from the table of methods. The clock is monotonic, in seconds."""

    def __init__(
        self, methods: Mapping[str, Method], limits: EnvelopeLimits, clock: Callable[[], float]
    ) -> None:
        self._methods = methods
        self._limits = limits
        self._clock = clock
        self._ordinary_calls = 0
        self.answered: Counter[tuple[str, str]] = Counter()  # calls, by method and outcome
        self._roomed = [
            _Roomed(method.name, f'"{method.name}"'.encode(), method.room)
            for method in methods.values()
            if method.room
        ]

    async def answer(self, body: bytes, caller: object, client: Client = LOCAL) -> str | None:
        """The reply's text; None when there is nothing to say. Never raises but for cancellation."""
        try:
            client.charge(len(body) // BODY_BYTES_PER_UNIT)
            payload = parse_json(body)
            if not isinstance(payload, list | dict):
                raise InvalidRequest("expected an object or an array")
            items = self._check_batch(payload) if isinstance(payload, list) else [payload]
        except RpcError as fault:
            self._count(None, fault)
            return _reply(None, fault)
        calls = [read_call(item, self._methods, client) for item in items]
        if client.is_reserved:
            return await self._answer_all(payload, calls, caller)
        if busy := self._find_no_room(client, len(calls)):
            calls = [call._replace(fault=call.fault or busy) for call in calls]
        self._ordinary_calls += len(calls)
        client.calls += len(calls)
        try:
            return await self._answer_all(payload, calls, caller)
        finally:
            self._ordinary_calls -= len(calls)
            client.calls -= len(calls)

    def unread(self, body: bytes) -> "Unread | None":
        """The request, if it is a batch of nothing but calls of a method that needs room."""
        if not body.startswith(b"["):
            return None
        count = body.count(_METHOD_MEMBER)
        for method in self._roomed:
            if 0 < count <= self._limits.batch_items_max and body.count(method.member) == count:
                return Unread(method, body, count, self.answered)
        return None

    def _count(self, method: Method | None, result: Any) -> None:
        name = "unknown" if method is None else method.name
        self.answered[name, result.outcome if isinstance(result, RpcError) else "ok"] += 1

    def _find_no_room(self, client: Client, count: int) -> TryLater | None:
        if client.calls + count > self._limits.client_calls_max:
            return TryLater(f"overloaded: {client.calls:,} calls of this client are at work")
        if self._ordinary_calls + count > self._limits.ordinary_calls_max:
            return TryLater(f"overloaded: {self._ordinary_calls:,} calls are at work")
        return None

    async def _answer_all(self, payload: Json, calls: Sequence[Call], caller: object) -> str | None:
        if isinstance(payload, list):
            return await self._answer_batch(calls, caller)
        return await self._answer_one(calls[0], caller)

    def _check_batch(self, items: list[Json]) -> list[Json]:
        """Raises: InvalidRequest when the batch is empty or too long."""
        if not items:
            raise InvalidRequest("the batch is empty")
        if len(items) > self._limits.batch_items_max:
            raise InvalidRequest(f"batch of {len(items)}; limit {self._limits.batch_items_max}")
        return items

    async def _answer_one(self, call: Call, caller: object) -> str | None:
        result = await _run(call, caller)
        self._count(call.method, result)
        reply = _reply(call.id, result)
        if reply is not None and len(reply) > self._limits.reply_bytes_max:
            text = f"reply of {len(reply):,} bytes; limit {self._limits.reply_bytes_max:,}"
            return _reply(call.id, Refused(text))
        return reply

    async def _answer_batch(self, calls: Sequence[Call], caller: object) -> str | None:
        replies: list[str] = []
        size, stopped = 0, None
        deadline = self._clock() + self._limits.batch_s_max
        turns = Turns()
        for run in _runs(calls):
            results = [stopped] * len(run) if stopped else await _run_together(run, caller)
            for call, result in zip(run, results, strict=True):
                self._count(call.method, stopped or result)
                reply = _reply(call.id, stopped or result)
                if reply is None:
                    continue
                if not stopped and size + len(reply) > self._limits.reply_bytes_max:
                    stopped = TryLater(f"batch stopped: reply limit {self._limits.reply_bytes_max:,} bytes")
                    reply = _reply(call.id, stopped) or ""
                size += len(reply)
                replies.append(reply)
            if not stopped and self._clock() > deadline:
                stopped = TryLater(f"batch stopped: time limit {self._limits.batch_s_max:g} s")
            await turns.pause()
        return f"[{','.join(replies)}]" if replies else None


def _runs(calls: Sequence[Call]) -> Iterator[Sequence[Call]]:
    """The calls in order, with neighbours together where their method takes many at once."""
    start = 0
    for at in range(1, len(calls) + 1):
        first = calls[start]
        if (
            at == len(calls)
            or first.fault
            or calls[at].fault
            or calls[at].method is not first.method
            or first.method is None
            or first.method.many is None
        ):
            yield calls[start:at]
            start = at


async def _run_together(calls: Sequence[Call], caller: object) -> Sequence[Any]:
    """A result or an RpcError for each."""
    method = calls[0].method
    if len(calls) == 1 or method is None or method.many is None:
        return [await _run(call, caller) for call in calls]
    try:
        results = await method.many(caller, [call.arguments for call in calls])
    except Exception as fault:  # noqa: BLE001  the root of a request: whatever it is, the client gets an answer
        return [_as_error(fault, method.name)] * len(calls)
    return [_as_error(r, method.name) if isinstance(r, Exception) else r for r in results]


async def _run(call: Call, caller: object) -> Any:
    """The result, or an RpcError."""
    if call.fault is not None or call.method is None:
        return call.fault
    for _ in range(STATE_TRIES):
        try:
            result = call.method.function(caller, *call.arguments)
            return await result if call.method.is_async else result
        except StateUnready as state:
            await _work_out(state)
        except Exception as fault:  # noqa: BLE001  the root of a request: whatever it is, the client gets an answer
            return _as_error(fault, call.method.name)
    return TryLater("overloaded: the states of too many past blocks are asked for")


async def _work_out(state: StateUnready) -> None:
    turns = Turns()
    while not state.work():
        await turns.pause()


def _as_error(fault: Exception, method: str) -> RpcError:
    """What the client is told. Nothing of an unexpected error but the number under which the log has it."""
    if isinstance(fault, RpcError):
        return fault
    if isinstance(fault, NotTakenNow):
        return TryLater(str(fault))
    if isinstance(fault, BlockPruned | InvalidTransaction | StatePruned):
        return Refused(str(fault))
    incident = secrets.token_hex(4)
    _log.error(
        "incident %(incident)s in %(method)s", {"incident": incident, "method": method}, exc_info=fault
    )
    return InternalError(incident)


def error_reply(request_id: Id, fault: RpcError) -> str | None:
    """The reply that says this error; None to a notification."""
    return _reply(request_id, fault)


def _refuse_all(ids: Sequence[bytes], fault: RpcError) -> str:
    """The reply to a batch in which every call meets this error; its ids as they came."""
    error = dumps(fault.to_json())
    replies = [f'{{"jsonrpc":"2.0","id":{each.decode()},"error":{error}}}' for each in ids]
    return f"[{','.join(replies)}]"


def _reply(request_id: Id, result: Any) -> str | None:
    """The reply's text; None to a notification."""
    if request_id is NO_ID:
        return None
    identity = dumps(request_id)
    if isinstance(result, RpcError):
        return f'{{"jsonrpc":"2.0","id":{identity},"error":{dumps(result.to_json())}}}'
    text = result if type(result) is RawJson else dumps(result)
    return f'{{"jsonrpc":"2.0","id":{identity},"result":{text}}}'
