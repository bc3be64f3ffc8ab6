"""Reads every module's syntax tree and fails on a wrong arrow, a wrong owner, or what makes two machines differ.

A rule is a function from a module to its faults. Each is held against the whole tree, and against small modules that
break it or just do not.
"""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ctt_state", "node", "p2p", "rpc", "apps", "bench")

# The longest entry that a module lies in says what of ours it may import.
ARROWS = {
    "ctt_state": ("ctt_state",),
    "node": ("ctt_state", "node"),
    "node.consensus": ("ctt_state", "node.consensus"),
    "node.cli": ("ctt_state", "node", "p2p", "rpc", "apps"),
    "node.peering": ("ctt_state", "node", "p2p"),
    "p2p": ("ctt_state", "p2p"),
    "rpc": ("ctt_state", "rpc"),
    "apps": ("ctt_state", "apps"),
    "bench": PACKAGES,
}

# Of a library, or a part of one, and the only modules that may import it.
OWNERS = {
    "plyvel": ("node.store", "bench.limits"),
    "coincurve": ("ctt_state.crypto", "bench.limits"),
    "sha3": ("ctt_state.crypto",),
    "aiohttp.web": ("rpc.server", "rpc.guard", "apps.advisor.service"),
}

PURE = ("ctt_state", "node.consensus")
IMPURE_LIBRARIES = frozenset(
    [
        *("asyncio", "concurrent", "multiprocessing", "queue", "select", "selectors", "threading"),
        *("datetime", "time", "random", "secrets", "uuid"),
        *("http", "socket", "ssl", "subprocess", "urllib"),
        *("io", "os", "pathlib", "shutil", "tempfile"),
        *("getpass", "importlib", "locale", "logging", "platform", "signal", "sys"),
    ]
)
IMPURE_BUILTINS = frozenset(("__import__", "breakpoint", "eval", "exec", "input", "open", "print"))

READS_CLOCK = frozenset(
    {
        f"time.{name}{suffix}"
        for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time", "clock_gettime")
        for suffix in ("", "_ns")
    }
    | {f"time.{name}" for name in ("ctime", "gmtime", "localtime", "strftime")}
    | {f"datetime.datetime.{name}" for name in ("now", "today", "utcnow")}
    | {"datetime.date.today"}
)
# The loop that waits, a warning before it does, when a certificate or a token begins and ends, when a register was read, how long a request may
# hold the loop, the pace of the demonstration, and what measures.
# The loop that waits, the pace of a backup, a warning before it does, when a certificate or a token begins and ends, how long a request may
# hold the loop, the pace of the demonstration, a meter's gateway, and what measures.
MAY_READ_CLOCK = (
    "node.runner",
    "node.backup",
    "node.pulse",
    "node.cli.genesis",
    "node.cli.init",
    "node.cli.access",
    "node.cli.ca",
    "node.cli.certification",
    "node.cli.door",
    "node.cli.network",
    "rpc.turns",
    "apps.demo.network",
    "apps.demo.play",
    "apps.meter.intake",
    "apps.meter.sender",
    "apps.meter.simulate",
    "bench",
)

# Where a task or a request has its root: whatever went wrong, somebody gets an answer.
TASK_ROOTS = ("node.cli.main", "rpc.jsonrpc")


class Module(NamedTuple):
    """A source file: its dotted name and its syntax tree."""

    name: str
    tree: ast.Module
    is_package: bool = False

    def lies_in(self, names: tuple[str, ...]) -> bool:
        return any(is_within(self.name, name) for name in names)


Rule = Callable[[Module], Iterator[str]]


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def fault(node: ast.AST, text: str) -> str:
    return f"line {getattr(node, 'lineno', 0)}: {text}"


# Names


def imports(module: Module) -> Iterator[tuple[ast.stmt, str, str]]:
    """Each import's statement, the dotted name of what it binds, and the name it binds that to."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name, alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node, f"{_origin(module, node)}.{alias.name}", alias.asname or alias.name


def _origin(module: Module, node: ast.ImportFrom) -> str:
    """What a `from` names, with its leading dots resolved."""
    if node.level == 0:
        return node.module or ""
    parts = module.name.split(".")
    kept = parts[: len(parts) - node.level + (1 if module.is_package else 0)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def references(module: Module) -> Iterator[tuple[ast.expr, str]]:
    """Each name or attribute, as the dotted name of what it was imported as."""
    origins = {bound: name for _, name, bound in imports(module)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name | ast.Attribute) and (dotted := dotted_name(node)):
            head, dot, rest = dotted.partition(".")
            yield node, f"{origins.get(head, head)}{dot}{rest}"


def dotted_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (inner := dotted_name(node.value)):
        return f"{inner}.{node.attr}"
    return None


def calls(module: Module, names: frozenset[str]) -> Iterator[ast.Call]:
    """The calls of built-in functions of these names."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node


# Rules


def arrows(module: Module) -> Iterator[str]:
    """Our packages import one another in one direction only."""
    home = max((name for name in ARROWS if is_within(module.name, name)), key=len)
    for node, name, _ in imports(module):
        is_ours = name.split(".")[0] in (*PACKAGES, "tests")
        # `node` may not reach into what lies above it, its own command line.
        is_above = is_within(name, "node.cli") and home == "node"
        if is_ours and (is_above or not any(is_within(name, allowed) for allowed in ARROWS[home])):
            yield fault(node, f"{home} imports {name}")


def private_names(module: Module) -> Iterator[str]:
    """A name with an underscore stays in its package."""
    package = module.name.split(".")[0]
    for node, name, _ in imports(module):
        first, *rest = name.split(".")
        if first in PACKAGES and first != package and any(part.startswith("_") for part in rest):
            yield fault(node, f"{name} is private to {first}")


def owners(module: Module) -> Iterator[str]:
    """LevelDB, secp256k1, Keccak and the HTTP server are each known to one place."""
    for node, name, _ in imports(module):
        for library, homes in OWNERS.items():
            is_library = is_within(name, library) or name.startswith(f"{library}_")  # aiohttp.web_exceptions
            if is_library and not module.lies_in(homes):
                yield fault(node, f"{name} belongs to {', '.join(homes)}")
    if "aiohttp" in {name for _, name, _ in imports(module)} and not module.lies_in(OWNERS["aiohttp.web"]):
        for used, name in references(module):
            if is_within(name, "aiohttp.web"):
                yield fault(used, f"{name} belongs to {', '.join(OWNERS['aiohttp.web'])}")


def pure(module: Module) -> Iterator[str]:
    """The ledger and the consensus know no clock, chance, file, socket, thread or log."""
    if not module.lies_in(PURE):
        return
    for node, name, _ in imports(module):
        if name.split(".")[0] in IMPURE_LIBRARIES:
            yield fault(node, f"imports {name}")
    for call in calls(module, IMPURE_BUILTINS):
        yield fault(call, f"calls {ast.unparse(call.func)}()")


def clock(module: Module) -> Iterator[str]:
    """Time is an argument; few read it."""
    if module.lies_in(MAY_READ_CLOCK):
        return
    for node, name in references(module):
        if name in READS_CLOCK:
            yield fault(node, f"reads {name}")
    for called in ast.walk(module.tree):
        match called:
            case ast.Call(func=ast.Attribute(attr="time", value=owner), args=[], keywords=[]):
                if dotted_name(owner) not in ("time", "datetime"):
                    yield fault(called, f"reads {ast.unparse(called)}, a loop's clock")


def no_floats(module: Module) -> Iterator[str]:
    """D-1: numbers are integers, and every division says which way it rounds."""
    if not module.lies_in(PURE):
        return
    for node in ast.walk(module.tree):
        match node:
            case ast.Constant(value=float() | complex()):
                yield fault(node, f"{ast.unparse(node)} is no integer")
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                yield fault(node, f"{ast.unparse(node)} gives a float")
    for call in calls(module, frozenset(("float", "complex"))):
        yield fault(call, f"{ast.unparse(call)} makes a float")


def no_machine_values(module: Module) -> Iterator[str]:
    """D-1: hash() and id() differ from one process to the next; so may a repr() that is encoded."""
    if not module.lies_in(PURE):
        return
    within = {inner: name for name, inner in _functions_of_calls(module)}
    for call in calls(module, frozenset(("hash", "id"))):
        if within.get(call) != "__hash__":
            yield fault(call, f"{ast.unparse(call)} differs between processes")
    for call in calls(module, frozenset(("repr",))):
        if within.get(call, "").lstrip("_").startswith(("encode", "hash", "digest")):
            yield fault(call, f"{ast.unparse(call)} is no encoding")


def _functions_of_calls(module: Module) -> Iterator[tuple[str, ast.Call]]:
    """Each call with the name of the function that it is in; the innermost comes last."""
    for function in ast.walk(module.tree):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Call):
                    yield function.name, node


def no_set_order(module: Module) -> Iterator[str]:
    """D-1: a set's order is nobody's business; what is to have an order is sorted."""
    if not module.lies_in(PURE):
        return
    names = _names_of_sets(module)
    for node in ast.walk(module.tree):
        for iterated in _iterated(node):
            if _is_set(iterated, names):
                yield fault(node, f"takes {ast.unparse(iterated)} in the order of a set")


def _iterated(node: ast.AST) -> list[ast.expr]:
    """What the node goes through in order and keeps that order of."""
    match node:
        case ast.For(iter=iterated) | ast.Starred(value=iterated):
            return [iterated]
        case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
            return [generator.iter for generator in node.generators]
        case ast.Call(func=ast.Name(id="list" | "tuple" | "iter" | "enumerate" | "map" | "zip" | "reversed")):
            return node.args
        case ast.Call(func=ast.Attribute(attr="join" | "extend" | "fromkeys")):
            return node.args
        case ast.Call(func=ast.Attribute(attr="pop", value=popped), args=[]):
            return [popped]
    return []


def _names_of_sets(module: Module) -> frozenset[str]:
    """Variables, arguments and attributes that are sets by their annotation or by what is assigned to them."""
    found = set()
    for node in ast.walk(module.tree):
        match node:
            case ast.AnnAssign(target=target, annotation=annotation) if _says_set(annotation):
                found.add(ast.unparse(target))
            case ast.Assign(targets=[target], value=value) if _is_set(value, frozenset()):
                found.add(ast.unparse(target))
            case ast.arg(arg=name, annotation=ast.expr() as annotation) if _says_set(annotation):
                found.add(name)
    return frozenset(found)


def _says_set(annotation: ast.expr) -> bool:
    return ast.unparse(annotation).startswith(
        ("set", "frozenset", "AbstractSet", "Final[set", "Final[frozenset")
    )


def _is_set(node: ast.expr, names: frozenset[str]) -> bool:
    match node:
        case ast.Set() | ast.SetComp() | ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.BinOp(op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor()):
            return _is_set(node.left, names) or _is_set(node.right, names)
        case ast.Name() | ast.Attribute():
            return ast.unparse(node) in names
    return False


def no_assert(module: Module) -> Iterator[str]:
    """`python -O` deletes assertions: input is refused, and our own mistakes are raised as AssertionError."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Assert):
            yield fault(node, f"asserts {ast.unparse(node.test)}")


def catch_all(module: Module) -> Iterator[str]:
    """Only the root of a task catches everything; others may clean up and raise it again."""
    if module.lies_in(TASK_ROOTS):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and _catches_all(node.type) and not _raises_again(node):
            yield fault(node, "catches everything")
        if isinstance(node, ast.Call) and _suppresses_all(node):
            yield fault(node, "suppresses everything")


def _catches_all(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(map(_catches_all, caught.elts))
    return caught is None or (isinstance(caught, ast.Name) and caught.id in ("Exception", "BaseException"))


def _suppresses_all(call: ast.Call) -> bool:
    return dotted_name(call.func) in ("suppress", "contextlib.suppress") and any(map(_catches_all, call.args))


def _raises_again(handler: ast.ExceptHandler) -> bool:
    return isinstance(handler.body[-1], ast.Raise)


def named_fields(module: Module) -> Iterator[str]:
    """What a log line tells has names, which are the fields of its JSON."""
    if not module.lies_in(("node", "p2p", "rpc")):
        return
    for node in ast.walk(module.tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if (dotted_name(node.func.value) or "").split(".")[-1].lstrip("_") != "log":
            continue
        for argument in node.args:
            match argument:
                case ast.Constant(value=str(text)) if re.search(r"%[^(%]", text.replace("%%", "")):
                    yield fault(node, f"{text!r} has a field without a name")


RULES: tuple[Rule, ...] = (
    arrows,
    private_names,
    owners,
    pure,
    clock,
    no_floats,
    no_machine_values,
    no_set_order,
    no_assert,
    catch_all,
    named_fields,
)


# The tree


@cache
def modules() -> tuple[Module, ...]:
    return tuple(read(path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))


def read(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return Module(".".join(parts[:-1] if is_package else parts), tree, is_package)


def make_module(name: str, text: str) -> Module:
    return Module(name, ast.parse(text))


def test_every_package_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {package: sum(is_within(module.name, package) for module in modules()) for package in PACKAGES}

    assert all(counts.values()), counts
    with capsys.disabled():
        print(f"\narchitecture: {len(modules())} files read, {len(RULES)} rules")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps(rule: Rule) -> None:
    faults = [f"{module.name} {text}" for module in modules() for text in rule(module)]

    assert not faults, "\n".join([f"{rule.__doc__}", *faults])


@pytest.mark.parametrize(
    ("rule", "home"),
    [
        *((clock, home) for home in MAY_READ_CLOCK),
        *((catch_all, home) for home in TASK_ROOTS),
        *((owners, home) for homes in OWNERS.values() for home in homes),
    ],
)
def test_no_exemption_outlives_its_reason(rule: Rule, home: str) -> None:
    exempt = [module for module in modules() if is_within(module.name, home)]

    assert any(list(rule(module._replace(name="node.elsewhere"))) for module in exempt)


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (arrows, "ctt_state.block", "from node.store import Store"),
        (arrows, "ctt_state.block", "def f():\n    import rpc.server"),
        (arrows, "node.consensus.engine", "from node.exits import Exit"),
        (arrows, "node.consensus.engine", "from ..exits import Exit"),
        (arrows, "node.runner", "from rpc.server import Server"),
        (arrows, "node.runner", "from node.cli import main"),
        (arrows, "p2p.session", "import node"),
        (arrows, "p2p.session", "from rpc.chain import Chain"),
        (arrows, "rpc.eth", "from node.ledger import Ledger"),
        (arrows, "rpc.eth", "from apps import client"),
        (arrows, "apps.client", "from rpc.jsontext import dumps"),
        (arrows, "apps.client", "import p2p.messages as messages"),
        (arrows, "node.ledger", "from tests.world import make_chain"),
        (private_names, "apps.client", "from ctt_state.abi import _decode_value"),
        (owners, "node.ledger", "import plyvel"),
        (owners, "rpc.eth", "from coincurve import PublicKey"),
        (owners, "ctt_state.tree", "import sha3"),
        (owners, "rpc.eth", "from aiohttp import web"),
        (owners, "rpc.eth", "import aiohttp.web"),
        (owners, "rpc.eth", "from aiohttp.web_exceptions import HTTPNotFound"),
        (owners, "apps.client", "import aiohttp\naiohttp.web.Application()"),
        *((pure, "ctt_state.view", f"import {library}") for library in sorted(IMPURE_LIBRARIES)),
        (pure, "node.consensus.engine", "from os.path import join"),
        (pure, "ctt_state.genesis", "open('genesis.json')"),
        (clock, "node.ledger", "import time\nnow = time.time()"),
        (clock, "node.ledger", "import time as t\nnow = t.monotonic_ns"),
        (clock, "rpc.eth", "import time\ntime.clock_gettime(time.CLOCK_REALTIME)"),
        (clock, "p2p.peers", "from time import monotonic as now\nnow()"),
        (clock, "rpc.eth", "import datetime\ndatetime.datetime.now()"),
        (clock, "rpc.eth", "from datetime import datetime\ndatetime.now(None)"),
        (clock, "p2p.peers", "import asyncio\nasyncio.get_running_loop().time()"),
        (no_floats, "ctt_state.genesis", "x = 0.5"),
        (no_floats, "ctt_state.genesis", "x = a / b"),
        (no_floats, "node.consensus.engine", "x /= 2"),
        (no_floats, "ctt_state.genesis", "x = float('1')"),
        (no_machine_values, "ctt_state.view", "key = hash(record)"),
        (no_machine_values, "ctt_state.view", "key = id(record)"),
        (no_machine_values, "ctt_state.view", "def encode(x): return repr(x).encode()"),
        (no_set_order, "ctt_state.view", "for x in {1, 2}: pass"),
        (no_set_order, "ctt_state.view", "x = [y for y in set(z)]"),
        (no_set_order, "ctt_state.view", "x = tuple(frozenset(z) - {1})"),
        (no_set_order, "ctt_state.view", "x = {y for y in z}\nfor y in x: pass"),
        (no_set_order, "ctt_state.view", "def f(x: set[bytes]): return b''.join(x)"),
        (no_set_order, "ctt_state.view", "x = {1, 2}\nx.pop()"),
        (no_set_order, "ctt_state.view", "def f(self):\n    self._x: set[int] = y()\n    return [*self._x]"),
        (no_assert, "p2p.messages", "def decode(x):\n    assert x"),
        (no_assert, "node.ledger", "async def commit(x):\n    if x:\n        assert x.is_executed"),
        (catch_all, "node.ledger", "try: f()\nexcept Exception: pass"),
        (catch_all, "node.ledger", "try: f()\nexcept (OSError, BaseException): pass"),
        (catch_all, "node.ledger", "try: f()\nexcept: pass"),
        (catch_all, "node.ledger", "import contextlib\nwith contextlib.suppress(Exception): f()"),
        (named_fields, "node.ledger", "log.info('block %d', 7)"),
        (named_fields, "p2p.chatter", "self._log.log(level, '%s', 7)"),
    ],
)
def test_what_breaks_a_rule_is_found(rule: Rule, name: str, text: str) -> None:
    assert len(list(rule(make_module(name, text)))) >= 1


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (arrows, "node.cli.run", "from rpc.server import Server\nfrom apps import client\nimport p2p"),
        (arrows, "node.runner", "from node.consensus.engine import Engine\nfrom . import ledger"),
        (arrows, "bench.state", "from node.ledger import Ledger"),
        (arrows, "rpc.eth", "import ctt_state_elsewhere, nodes"),
        (private_names, "ctt_state.view", "from ctt_state.abi import _decode_value"),
        (owners, "node.store", "import plyvel"),
        (owners, "apps.client", "import aiohttp\naiohttp.ClientSession()\naiohttp.WSMsgType.TEXT"),
        (owners, "rpc.guard", "from aiohttp import web"),
        (pure, "node.runner", "import asyncio, time"),
        (pure, "ctt_state.genesis", "def f(open): return self.open()"),
        (clock, "node.runner", "import time\ntime.monotonic_ns()"),
        (clock, "rpc.eth", "import time\ntime.sleep(1)\ncall.block_time"),
        (clock, "rpc.eth", "block.time(1)"),
        (no_floats, "ctt_state.genesis", "x = a // b"),
        (no_floats, "bench.state", "x = a / b + 0.5"),
        (no_machine_values, "ctt_state.abi", "def __hash__(self): return hash((1, 2))"),
        (no_machine_values, "ctt_state.block", "x = block.hash()"),
        (no_set_order, "ctt_state.view", "for x in sorted({1, 2}): pass"),
        (no_set_order, "ctt_state.view", "x = [1, 2]\nx.pop()"),
        (no_set_order, "ctt_state.view", "x: set[int] = set()\ny = {z for z in x}\nlen(x)\n3 in x"),
        (no_assert, "node.ledger", "if not x.is_executed: raise AssertionError('not executed')"),
        (catch_all, "node.store", "try: f()\nexcept BaseException:\n    close()\n    raise"),
        (catch_all, "rpc.jsonrpc", "try: f()\nexcept Exception: answer()"),
        (catch_all, "node.ledger", "with suppress(OSError): f()"),
        (named_fields, "node.ledger", "log.info('block %(height)d, 100 %%', {'height': 7})\nx.info('%d', 7)"),
    ],
)
def test_what_keeps_a_rule_passes(rule: Rule, name: str, text: str) -> None:
    assert list(rule(make_module(name, text))) == []
