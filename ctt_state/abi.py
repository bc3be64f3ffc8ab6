"""The Solidity ABI, declared once beside each rule.

A module states its functions, events and errors in Solidity's own words, for example
`refill(uint256 amount,address prosumer) returns (uint256 stored)`. From that line come the selector, the argument
decoder, the result encoder and the entry of the ABI's JSON, so they cannot disagree.

Source: the Solidity contract ABI specification. Types: uintN, address, bool, bytesN, bytes, string, tuples and
arrays of unknown length. Decoding is strict as Solidity's own decoder is: dirty high bits, a bool above 1, offsets
outside the data and short data are refused; extra trailing bytes are not.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from ctt_state.crypto import keccak
from ctt_state.units import Address

WORD: Final = 32
ARRAY_ITEMS_MAX: Final = 10_000  # of one array argument; calldata is at most 128 KiB anyway

Handler = TypeVar("Handler", bound=Callable[..., Any])


class MalformedCalldata(ValueError):
    """The calldata does not decode as the function's arguments."""


class Revert(Exception):
    """A rule refused: everything is as before, the caller gets `data` (an ABI error, or nothing) and `reason`."""

    def __init__(self, reason: str, data: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Revert) and (self.reason, self.data) == (other.reason, other.data)

    def __hash__(self) -> int:
        return hash((self.reason, self.data))


# --- types ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Type:
    """One ABI type. `kind` is uint, address, bool, fixed (bytesN), bytes, string, tuple or array."""

    text: str  # canonical, as it enters the selector
    kind: str
    size: int = 0  # bits of a uint, bytes of a fixed
    parts: tuple["Param", ...] = ()  # of a tuple; of an array its one item

    is_word: bool = field(init=False)  # one static word
    is_dynamic: bool = field(init=False)
    head_bytes: int = field(init=False)  # of the enclosing head: its words, or the one word of its offset

    def __post_init__(self) -> None:
        """Computed once: decoding asks for them at every item of an array."""
        is_dynamic = self.kind in ("bytes", "string", "array") or any(p.type.is_dynamic for p in self.parts)
        is_flat = self.kind == "tuple" and not is_dynamic
        object.__setattr__(self, "is_word", self.kind in ("uint", "address", "bool", "fixed"))
        object.__setattr__(self, "is_dynamic", is_dynamic)
        object.__setattr__(
            self, "head_bytes", sum(p.type.head_bytes for p in self.parts) if is_flat else WORD
        )


@dataclass(frozen=True, slots=True)
class Param:
    """A named value of a declaration."""

    name: str
    type: Type
    indexed: bool = False

    def to_json(self) -> dict[str, Any]:
        inner, suffix = self.type, ""
        while inner.kind == "array":
            inner, suffix = inner.parts[0].type, suffix + "[]"
        if inner.kind == "tuple":
            components = [part.to_json() for part in inner.parts]
            return {"name": self.name, "type": "tuple" + suffix, "components": components}
        return {"name": self.name, "type": self.type.text}


def parse_params(text: str) -> tuple[Param, ...]:
    """`uint256 a,(address b,bool c)[] d` as parameters. Only declarations come here, never input."""
    return tuple(_parse_param(part.strip()) for part in _split_commas(text)) if text.strip() else ()


def _split_commas(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def _parse_param(text: str) -> Param:
    end = text.rindex(")") + 1 if text.startswith("(") else 0
    words = text[end:].split(" ")
    type_text = text[:end] + words[0]
    return Param(words[-1] if len(words) > 1 else "", _parse_type(type_text), "indexed" in words[1:-1])


def _parse_type(text: str) -> Type:
    if text.endswith("[]"):
        item = _parse_type(text[:-2])
        return Type(item.text + "[]", "array", parts=(Param("", item),))
    if text.startswith("("):
        parts = parse_params(text[1:-1])
        return Type(f"({','.join(part.type.text for part in parts)})", "tuple", parts=parts)
    if text.startswith("uint"):
        return Type(text, "uint", int(text[4:]))
    if text.startswith("bytes") and text != "bytes":
        return Type(text, "fixed", int(text[5:]))
    if text in ("address", "bool", "bytes", "string"):
        return Type(text, text)
    raise ValueError(f"no such ABI type: {text!r}")


# --- encoding ------------------------------------------------------------------------------------------------------


def _number_word(value: int) -> bytes:
    return value.to_bytes(WORD, "big")


def _address_word(value: bytes) -> bytes:
    return _ADDRESS_PADDING + value


def _fixed_word(value: bytes) -> bytes:
    return value.ljust(WORD, b"\0")


_ADDRESS_PADDING: Final = bytes(12)
_WORD_ENCODERS: Final[dict[str, Callable[[Any], bytes]]] = {
    "uint": _number_word,
    "bool": _number_word,
    "address": _address_word,
    "fixed": _fixed_word,
}


def encode_word(kind: Type, value: Any) -> bytes:
    """One static value as its 32 bytes."""
    return _WORD_ENCODERS[kind.kind](value)


def encode_values(params: Sequence[Param], values: Sequence[Any]) -> bytes:
    """The values as Solidity's `abi.encode` writes them."""
    heads: list[bytes] = []
    tails: list[bytes] = []
    offset = sum(param.type.head_bytes for param in params)
    for param, value in zip(params, values, strict=True):
        if param.type.is_dynamic:
            heads.append(offset.to_bytes(WORD, "big"))
            tails.append(_encode_value(param.type, value))
            offset += len(tails[-1])
        else:
            heads.append(_encode_value(param.type, value))
    return b"".join(heads + tails)


def _encode_value(kind: Type, value: Any) -> bytes:
    if kind.kind in ("bytes", "string"):
        data = value.encode() if isinstance(value, str) else bytes(value)
        return len(data).to_bytes(WORD, "big") + data + bytes(-len(data) % WORD)
    if kind.kind == "array":
        return len(value).to_bytes(WORD, "big") + encode_values(kind.parts * len(value), value)
    if kind.kind == "tuple":
        return encode_values(kind.parts, value)
    return encode_word(kind, value)


# --- decoding ------------------------------------------------------------------------------------------------------


def decode_word(kind: Type, word: bytes) -> Any:
    """One static value. Raises: MalformedCalldata for bits its type does not have."""
    if kind.kind == "address":
        if word[:12] != bytes(12):
            raise MalformedCalldata("address has non-zero padding")
        return word[12:]
    if kind.kind == "fixed":
        if any(word[kind.size :]):
            raise MalformedCalldata(f"{kind.text} has non-zero padding")
        return word[: kind.size]
    number = int.from_bytes(word, "big")
    if kind.kind == "bool":
        if number > 1:
            raise MalformedCalldata(f"bool is {number}")
        return number == 1
    if number >> kind.size:
        raise MalformedCalldata(f"{kind.text} is above its range")
    return number


def decode_values(params: Sequence[Param], data: bytes, base: int = 0) -> tuple[Any, ...]:
    """The values at `base`. Raises: MalformedCalldata naming the argument, counted from 1."""
    values = []
    at = base
    for position, param in enumerate(params, 1):
        kind = param.type
        try:
            if kind.is_word:
                values.append(decode_word(kind, _read_word(data, at)))
            else:
                start = base + _read_length(data, at) if kind.is_dynamic else at
                values.append(_decode_value(kind, data, start))
        except MalformedCalldata as fault:
            raise MalformedCalldata(f"argument {position}: {fault}") from None
        at += kind.head_bytes
    return tuple(values)


def _decode_value(kind: Type, data: bytes, at: int) -> Any:
    if kind.kind == "tuple":
        return decode_values(kind.parts, data, at)
    if kind.kind == "array":
        count = _read_length(data, at)
        if count > ARRAY_ITEMS_MAX or count * kind.parts[0].type.head_bytes > len(data) - at - WORD:
            raise MalformedCalldata(f"array of {count} items is outside the data")
        return decode_values(kind.parts * count, data, at + WORD)
    if kind.kind in ("bytes", "string"):
        return _decode_bytes(kind, data, at)
    return decode_word(kind, _read_word(data, at))


def _decode_bytes(kind: Type, data: bytes, at: int) -> bytes | str:
    size = _read_length(data, at)
    content = data[at + WORD : at + WORD + size]
    if len(content) != size:
        raise MalformedCalldata(f"{kind.text} of {size} bytes is outside the data")
    if kind.kind == "bytes":
        return content
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise MalformedCalldata("string is not UTF-8") from None


def _read_word(data: bytes, at: int) -> bytes:
    word = data[at : at + WORD]
    if len(word) != WORD:
        raise MalformedCalldata("data is too short")
    return word


def _read_length(data: bytes, at: int) -> int:
    """A length or offset: nothing in calldata is longer than the calldata."""
    number = int.from_bytes(_read_word(data, at), "big")
    if number > len(data):
        raise MalformedCalldata(f"length or offset {number} is outside the data")
    return number


# --- declarations --------------------------------------------------------------------------------------------------


def _canonical(name: str, params: Iterable[Param]) -> str:
    return f"{name}({','.join(param.type.text for param in params)})"


def _parse_declaration(text: str) -> tuple[str, tuple[Param, ...], str]:
    """Name, parameters and what follows the closing bracket."""
    name, _, rest = text.partition("(")
    end = _closing_bracket(rest)
    return name, parse_params(rest[:end]), rest[end + 1 :].strip()


def _closing_bracket(text: str) -> int:
    """Where the bracket closes that was open before this text."""
    depth = 1
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return at
    raise ValueError(f"no closing bracket in a declaration: {text!r}")


def _check_bounded(inputs: Iterable[Param]) -> None:
    """No input may be an array of dynamic items: all their offsets may point at the same long data, so that little
    calldata would make much work. So decoding costs at most the calldata's length a time for each input."""
    for param in inputs:
        if param.type.kind == "array" and param.type.parts[0].type.is_dynamic:
            raise ValueError(f"{param.type.text} would take unbounded time to decode")
        _check_bounded(param.type.parts)


class Emission(NamedTuple):
    """An event with its values, before the view adds the emitting address."""

    topics: tuple[bytes, ...]
    data: bytes


class Event:
    """An event of a module; called with its values it gives what a log stores. At most three are indexed."""

    def __init__(self, declaration: str) -> None:
        self.name, self.params, _ = _parse_declaration(declaration)
        self.topic = keccak(_canonical(self.name, self.params).encode())
        plain = [i for i, param in enumerate(self.params) if not param.indexed]
        self._plain = tuple(plain)
        self._plain_params = tuple(self.params[i] for i in plain)
        # Every reading emits a few events, so how their words are encoded is looked up once.
        self._indexed = [(i, _WORD_ENCODERS[p.type.kind]) for i, p in enumerate(self.params) if p.indexed]
        all_words = all(param.type.is_word for param in self._plain_params)
        self._words = [(i, _WORD_ENCODERS[self.params[i].type.kind]) for i in plain] if all_words else None

    def __call__(self, *values: Any) -> Emission:
        topics = (self.topic, *[encode(values[i]) for i, encode in self._indexed])
        if self._words is not None:
            return Emission(topics, b"".join([encode(values[i]) for i, encode in self._words]))
        return Emission(topics, encode_values(self._plain_params, [values[i] for i in self._plain]))

    def to_json(self) -> dict[str, Any]:
        inputs = [{**param.to_json(), "indexed": param.indexed} for param in self.params]
        return {"type": "event", "name": self.name, "inputs": inputs, "anonymous": False}


class Error:
    """A reason for refusal; called with its figures it gives the `Revert` to raise."""

    def __init__(self, declaration: str) -> None:
        self.name, self.params, _ = _parse_declaration(declaration)
        self.selector = keccak(_canonical(self.name, self.params).encode())[:4]

    def __call__(self, *values: Any) -> Revert:
        figures = ", ".join(
            f"{param.name}={_readable(value)}" for param, value in zip(self.params, values, strict=True)
        )
        return Revert(f"{self.name}({figures})", self.selector + encode_values(self.params, values))

    def to_json(self) -> dict[str, Any]:
        return {"type": "error", "name": self.name, "inputs": [param.to_json() for param in self.params]}


def _readable(value: Any) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a module: how its calldata decodes, who answers, how the result encodes."""

    name: str
    inputs: tuple[Param, ...]
    outputs: tuple[Param, ...]
    mutability: str  # view, nonpayable or payable
    handler: Callable[..., Any]

    @property
    def signature(self) -> str:
        return _canonical(self.name, self.inputs)

    @property
    def selector(self) -> bytes:
        return keccak(self.signature.encode())[:4]

    def decode_arguments(self, calldata: bytes) -> tuple[Any, ...]:
        """Raises: MalformedCalldata, naming the function and the argument."""
        try:
            return decode_values(self.inputs, calldata[4:])
        except MalformedCalldata as fault:
            raise MalformedCalldata(f"{self.name}: {fault}") from None

    def encode_arguments(self, *values: Any) -> bytes:
        return self.selector + encode_values(self.inputs, values)

    def encode_result(self, result: Any) -> bytes:
        if len(self.outputs) == 1:
            return encode_values(self.outputs, (result,))
        return encode_values(self.outputs, result or ())

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "function",
            "name": self.name,
            "stateMutability": self.mutability,
            "inputs": [param.to_json() for param in self.inputs],
            "outputs": [param.to_json() for param in self.outputs],
        }


class Module:
    """A native module: a fixed address and the table of what it answers. The table is the only dispatcher."""

    def __init__(self, name: str, address: Address) -> None:
        self.name = name
        self.address = address
        self.functions: dict[bytes, Function] = {}
        self.events: dict[bytes, Event] = {}
        self.errors: dict[bytes, Error] = {}

    def function(self, declaration: str) -> Callable[[Handler], Handler]:
        """Registers the decorated function for `name(inputs) [view|payable] [returns (outputs)]`."""
        name, inputs, rest = _parse_declaration(declaration)
        _check_bounded(inputs)
        head, _, returns = rest.partition("returns")
        outputs = parse_params(returns.strip()[1:-1]) if returns else ()

        def register(handler: Handler) -> Handler:
            function = Function(name, inputs, outputs, head.strip() or "nonpayable", handler)
            if function.selector in self.functions:
                raise ValueError(f"{function.signature} is declared twice")
            self.functions[function.selector] = function
            return handler

        return register

    def event(self, declaration: str) -> Event:
        event = Event(declaration)
        self.events[event.topic] = event
        return event

    def error(self, declaration: str) -> Error:
        error = Error(declaration)
        self.errors[error.selector] = error
        return error

    def named(self, signature: str) -> Function:
        """The function of this canonical signature, such as `refill(uint256,address)`."""
        return self.functions[keccak(signature.encode())[:4]]

    def abi_json(self) -> list[dict[str, Any]]:
        """The module's ABI as wallets and libraries read it."""
        declared: list[Function | Event | Error] = [
            *self.functions.values(),
            *self.events.values(),
            *self.errors.values(),
        ]
        return [entry.to_json() for entry in declared]
