"""The decoders that a stranger's bytes reach, each with what must hold for any bytes.

A target takes bytes and says whether they decoded, or raises AssertionError. What a decoder itself may raise is the one family of errors
that its callers catch; anything else (a RecursionError, an OverflowError, a KeyError) goes through and is a finding.
"""

import asyncio
import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import rlp as pyrlp
from eth_account import Account as EthAccount

from ctt_state import rlp
from ctt_state.abi import MalformedCalldata, Type
from ctt_state.document import MalformedJson, parse_json
from ctt_state.errors import InvalidTransaction
from ctt_state.genesis import load_genesis
from ctt_state.light import LightRejected, decode_header
from ctt_state.modules import MODULES
from ctt_state.modules.market import MARKET
from ctt_state.transaction import (
    decode_included,
    decode_transaction,
    recover_sender,
    sign_transaction,
    system_transaction,
)
from ctt_state.units import Address
from ctt_state.votes import Certificate, Evidence, Kind, MalformedVote, Statement, Vote, sign_vote
from node import journal
from node.datadir import StorageDamaged
from p2p.errors import PeerMisbehaved
from p2p.framing import FrameReader, encode_frame
from p2p.messages import MESSAGES, decode_message
from rpc.discovery import METHODS
from rpc.door import Caller
from rpc.errors import INTERNAL_ERROR, RpcError
from rpc.jsonrpc import parse_json as parse_rpc
from rpc.params import bind
from rpc.server import RpcServer
from tests.live_node import GENESIS
from tests.p2p_world import EXAMPLES, GENESIS_HASH, make_block
from tests.rpc_world import ALICE_KEY, CHAIN_ID, RpcWorld, make_config


class Target(NamedTuple):
    """`check` for any bytes; `seeds` are some that mean something."""

    check: Callable[[bytes], bool]
    seeds: tuple[bytes, ...]
    slow: bool = False  # thousands a second rather than tens of thousands


# --- transactions ---------------------------------------------------------------------------------------------------


def check_rlp(data: bytes) -> bool:
    """As another decoder reads it, and back to the same bytes."""
    try:
        item = rlp.decode(data)
    except rlp.MalformedRlp:
        return False
    assert rlp.encode(item) == data
    assert pyrlp.decode(data) == item
    return True


def check_transaction(data: bytes) -> bool:
    """What is taken has one encoding, and other libraries recover the same sender."""
    try:
        transaction = decode_transaction(data, CHAIN_ID)
        sender = recover_sender(transaction)
    except InvalidTransaction:
        return False
    assert transaction.raw == data
    assert bytes.fromhex(EthAccount.recover_transaction(data)[2:]) == sender
    return True


def check_included(data: bytes) -> bool:
    """What is taken out of a block has one encoding, its system transaction too."""
    try:
        transaction = decode_included(data, CHAIN_ID)
    except InvalidTransaction:
        return False
    assert transaction.raw == data
    return True


def check_calldata(data: bytes) -> bool:
    """Arguments that decode encode to the same words: only what trails behind them is lost."""
    functions = (module.functions.get(data[:4]) for module in MODULES.values())
    function = next(filter(None, functions), None)
    if function is None:
        return False
    try:
        arguments = function.decode_arguments(data)
    except MalformedCalldata:
        return False
    assert function.decode_arguments(function.encode_arguments(*arguments)) == arguments
    return True


# --- peers and consensus --------------------------------------------------------------------------------------------


def check_frames(data: bytes) -> bool:
    """However the bytes come, the same frames come out of them."""

    def frames(pieces: Iterable[bytes]) -> list[tuple[int, bytes]] | None:
        reader, found = FrameReader(), list[tuple[int, bytes]]()
        try:
            for piece in pieces:
                found += [(kind, bytes(payload)) for kind, payload in reader.feed(piece)]
        except PeerMisbehaved:
            return None
        return found

    whole, parts = frames([data]), frames([data[i : i + 1] for i in range(len(data))])
    assert whole == parts
    return bool(whole)


def check_message(data: bytes) -> bool:
    if not data:
        return False
    kinds = sorted(MESSAGES)
    try:
        message = decode_message(kinds[data[0] % len(kinds)], data[1:])
    except PeerMisbehaved:
        return False
    assert message.encode() == data[1:]
    return True


def _check_form(decode: Callable[[bytes], Any], refusal: type[Exception]) -> Callable[[bytes], bool]:
    """What decodes has one form."""

    def check(data: bytes) -> bool:
        try:
            decoded = decode(data)
        except refusal:
            return False
        assert decoded.encode() == data
        return True

    return check


def check_journal(records: bytes) -> bool:
    """The records of one step under right checksums, so that they are read at all."""
    empty = journal.Contents(GENESIS_HASH, bytes(33))
    start = journal._encode_file(empty)[: journal._HEADER.size + journal._CHECKSUM.size]
    with tempfile.TemporaryDirectory() as directory:
        path = journal.journal_path(Path(directory))
        path.parent.mkdir(mode=0o700)
        path.write_bytes(start + journal._encode_step(1, records))
        path.chmod(0o600)
        try:
            journal.read_journal(Path(directory))
        except StorageDamaged:
            return False
    return True


# --- JSON -----------------------------------------------------------------------------------------------------------


def check_rpc_body(data: bytes) -> bool:
    """What is taken for JSON another parser takes too, for the same."""
    return _check_json(parse_rpc, RpcError, data)


def check_document(data: bytes) -> bool:
    return _check_json(parse_json, MalformedJson, data)


def _check_json(parse: Callable[[bytes], Any], refusal: type[Exception], data: bytes) -> bool:
    try:
        value = parse(data)
    except refusal:
        return False
    assert json.loads(data) == value
    return True


def check_params(data: bytes) -> bool:
    """The first byte names the method."""
    if not data:
        return False
    methods = sorted(METHODS)
    try:
        bind(METHODS[methods[data[0] % len(methods)]].params, parse_rpc(data[1:]))
    except RpcError:
        return False
    return True


def check_genesis(data: bytes) -> bool:
    try:
        load_genesis(data)
    except ValueError:  # InvalidGenesis is one
        return False
    return True


class _Door:
    """A server over a small chain, on an event loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._server: RpcServer | None = None

    async def _answer(self, data: bytes) -> str | None:
        if self._server is None:
            self._server = RpcServer(RpcWorld(), make_config())
        client = self._server.access.client("127.0.0.1", None, [])
        caller = Caller(self._server.door, client.name)
        return await self._server._answer(data, caller, client)

    def check(self, data: bytes) -> bool:
        """A reply is JSON-RPC, and never says that the mistake was ours."""
        reply = self._loop.run_until_complete(self._answer(data))
        if reply is None:
            return False
        answers = json.loads(reply)
        for answer in answers if isinstance(answers, list) else [answers]:
            assert answer["jsonrpc"] == "2.0" and ("result" in answer) != ("error" in answer)
            assert answer.get("error", {}).get("code") != INTERNAL_ERROR, answer
        return '"result"' in reply


class _Socket:
    """A server over a small chain on a real port, anew for each connection."""

    def __init__(self) -> None:
        self._world, self._config = RpcWorld(), make_config()

    async def _exchange(self, data: bytes) -> bytes:
        server = RpcServer(self._world, self._config)
        await server.start()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(data)
            # Steps of the loop that both ends share: enough for an answer, if there is one.
            for _ in range(200):
                await asyncio.sleep(0)
            writer.write_eof()
            async with asyncio.timeout(30):
                said = await reader.read()
            writer.close()
        except ConnectionError:
            said = b""
        finally:
            await server.stop()
        return said

    def check(self, data: bytes) -> bool:
        """The connection ends, whatever came over it, and nobody has to look for a mistake of ours."""
        complaints = _Complaints()
        logging.getLogger().addHandler(complaints)
        try:
            said = asyncio.run(self._exchange(data))
        finally:
            logging.getLogger().removeHandler(complaints)
        assert not complaints.said, complaints.said
        assert b"HTTP/1.1 5" not in said, said
        return b'"result"' in said


class _Complaints(logging.Handler):
    """What was logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


# --- the table ------------------------------------------------------------------------------------------------------


def _body(method: str, *params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}).encode()


_SIGNED: Final = tuple(
    sign_transaction(
        ALICE_KEY, chain_id=CHAIN_ID, nonce=126 + kind, gas_limit=21_000, to=Address(b"\x11" * 20), type=kind
    )
    for kind in (0, 1, 2)
)


def _sample(kind: Type) -> Any:
    match kind.kind:
        case "uint":
            return 1
        case "bool":
            return True
        case "address":
            return Address(b"\x11" * 20)
        case "fixed":
            return bytes(kind.size)
        case "bytes":
            return b"some"
        case "string":
            return "some"
        case "tuple":
            return tuple(_sample(part.type) for part in kind.parts)
        case _:
            return [_sample(kind.parts[0].type)] * 2


_CALLDATA: Final = tuple(
    function.encode_arguments(*(_sample(param.type) for param in function.inputs))
    for module in MODULES.values()
    for function in module.functions.values()
)
_CALLS: Final[tuple[tuple[Any, ...], ...]] = (
    ("eth_getBalance", "0x" + "11" * 20, "latest"),
    ("eth_call", {"to": "0x" + "00" * 18 + "c700", "data": "0x18160ddd"}, "latest"),
    ("eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest", "topics": [None, ["0x" + "00" * 32]]}),
    ("eth_feeHistory", "0x2", "latest", [1.5, 50]),
    ("ctt_tokensOf", "0x" + "11" * 20),
    ("eth_sendRawTransaction", "0x" + _SIGNED[0].hex()),
)
_BODIES: Final = (
    *(_body(*call) for call in _CALLS[:-1]),
    b"[" + _body("eth_chainId") + b"," + _body("eth_blockNumber") + b"]",
)
_STATEMENT: Final = Statement(Kind.NOTARIZE, 0, 7, 6, GENESIS_HASH)
_OTHER: Final = Statement(Kind.NOTARIZE, 0, 7, 6, type(GENESIS_HASH)(bytes(32)))
_VOTES: Final = tuple(sign_vote(each, 1, ALICE_KEY, GENESIS_HASH) for each in (_STATEMENT, _OTHER))
_CERTIFICATE: Final = Certificate(_STATEMENT, tuple((place, bytes(64)) for place in range(3)))
_JOURNALED: Final[tuple[journal.Item, ...]] = (_VOTES[0], _CERTIFICATE, make_block(), journal.NO_MARKS)
_POST: Final = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_UPGRADE: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def _post(body: bytes) -> bytes:
    return _POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def _post_in_chunks(body: bytes) -> bytes:
    return _POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def _text_frame(body: bytes) -> bytes:
    """Under a mask of zeros."""
    return bytes((0x81, 0xFE)) + len(body).to_bytes(2, "big") + bytes(4) + body


TARGETS: Final[Mapping[str, Target]] = {
    "rlp": Target(
        check_rlp,
        (_SIGNED[0], *(raw[1:] for raw in _SIGNED[1:]), b"\xc2\x81\x80", b"\xf8\x38" + b"\x80" * 56),
    ),
    "transaction": Target(check_transaction, _SIGNED, slow=True),
    "included": Target(
        check_included,
        (system_transaction(CHAIN_ID, 4, 10**6, MARKET.address, b"data").raw, *_SIGNED),
    ),
    "calldata": Target(check_calldata, _CALLDATA),
    "frames": Target(check_frames, tuple(encode_frame(each.KIND, each.encode()) for each in EXAMPLES[:6])),
    "message": Target(
        check_message,
        tuple(bytes((sorted(MESSAGES).index(each.KIND),)) + each.encode() for each in EXAMPLES),
    ),
    "vote": Target(_check_form(Vote.decode, MalformedVote), (_VOTES[0].encode(),)),
    "certificate": Target(
        _check_form(Certificate.decode, MalformedVote),
        (_CERTIFICATE.encode(),),
    ),
    "evidence": Target(_check_form(Evidence.decode, MalformedVote), (Evidence(*_VOTES).encode(),)),
    "header": Target(_check_form(decode_header, LightRejected), (make_block().header.encode(),)),
    "rpc_body": Target(check_rpc_body, _BODIES),
    "rpc_params": Target(
        check_params,
        tuple(
            bytes((sorted(METHODS).index(name),)) + json.dumps(params).encode() for name, *params in _CALLS
        ),
    ),
    "rpc_answer": Target(_Door().check, _BODIES, slow=True),
    "socket": Target(
        _Socket().check,
        (
            _post(_BODIES[0]),
            _post_in_chunks(_BODIES[-1]),
            _post(_BODIES[0]) + _post(_BODIES[1]),
            _UPGRADE + _text_frame(_BODIES[0]) + _text_frame(_body("eth_subscribe", "newHeads")),
        ),
        slow=True,
    ),
    "journal": Target(
        check_journal,
        (b"".join(journal._encode_item(each) for each in _JOURNALED),),
        slow=True,
    ),
    "document": Target(check_document, (b'{"a":[1,"\\u00e9",null]}',)),
    "genesis": Target(check_genesis, (GENESIS.read_bytes(),), slow=True),
}
