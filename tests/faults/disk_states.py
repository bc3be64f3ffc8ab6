"""The disks that a power cut may leave, rebuilt from one trace of system calls.

A program runs once under strace. Its calls, applied one by one to a model of the disk, give at each instant what was
written, what was made durable, and so which contents are legal after a cut at that instant.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

TRACED_CALLS: Final = (
    "openat,open,creat,write,fdatasync,fsync,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat"
)
STRACE: Final = ("strace", "-f", "-qq", "-yy", "-xx", "-s", "1000000", "-e", f"trace={TRACED_CALLS}", "-o")


class Cut(Enum):
    """What of the unsynced the cut leaves."""

    KILLED = "everything: only the process ended"
    SYNCED = "no byte"
    TORN = "a part of the bytes of each file"
    ZEROS = "the lengths, with zeros for content"
    NAMES = "no byte, and no change of a name"


class Call(NamedTuple):
    """A system call that changed the disk, or the word of the program that something is done (`say`)."""

    name: str
    path: str
    content: bytes = b""
    target: str = ""


@dataclass
class File:
    content: bytearray = field(default_factory=bytearray)
    synced_bytes: int = 0


@dataclass
class Folder:
    entries: "dict[str, File | Folder]" = field(default_factory=dict)
    durable: "dict[str, File | Folder]" = field(default_factory=dict)  # as of the last fsync


class Disk:
    """A model of the files below `root`."""

    def __init__(self, root: Path) -> None:
        self._root_path = str(root)
        self._root = Folder()

    def apply(self, call: Call) -> None:
        if call.path == self._root_path:
            assert call.name == "fsync", call
            self._root.durable = dict(self._root.entries)
            return
        folder, name = self._find(call.path)
        node = folder.entries.get(name)
        match call.name:
            case "mkdir":
                folder.entries[name] = Folder()
            case "create":
                if node is None or call.content == b"truncate":
                    folder.entries[name] = File()
            case "write":
                assert isinstance(node, File), call
                node.content += call.content
            case "fsync" if isinstance(node, Folder):
                node.durable = dict(node.entries)
            case "fsync":
                # On ext4 and xfs the fsync of a new file makes its name durable, too.
                assert isinstance(node, File), call
                node.synced_bytes = len(node.content)
                folder.durable.setdefault(name, node)
            case "rename":
                target_folder, target = self._find(call.target)
                target_folder.entries[target] = folder.entries.pop(name)
            case "unlink":
                del folder.entries[name]

    def write_out(self, target: Path, cut: Cut, rng: random.Random) -> None:
        """Makes the disk after this cut, in an empty folder."""
        _write_folder(self._root, target, cut, rng)

    def _find(self, path: str) -> tuple[Folder, str]:
        *parents, name = PurePosixPath(path).relative_to(self._root_path).parts
        folder = self._root
        for parent in parents:
            child = folder.entries[parent]
            assert isinstance(child, Folder)
            folder = child
        return folder, name


def _write_folder(folder: Folder, target: Path, cut: Cut, rng: random.Random) -> None:
    target.mkdir()
    for name, node in (folder.durable if cut is Cut.NAMES else folder.entries).items():
        if isinstance(node, Folder):
            _write_folder(node, target / name, cut, rng)
        else:
            (target / name).write_bytes(_content(node, cut, rng))


def _content(file: File, cut: Cut, rng: random.Random) -> bytes:
    content, synced = bytes(file.content), file.synced_bytes
    match cut:
        case Cut.KILLED:
            return content
        case Cut.SYNCED | Cut.NAMES:
            return content[:synced]
        case Cut.TORN:
            return content[: rng.randint(synced, len(content))]
        case Cut.ZEROS:
            return content[:synced] + bytes(len(content) - synced)


# --- the trace ------------------------------------------------------------------------------------------------

_CALL: Final = re.compile(r"(\w+)\((.*)\)\s+= (\d+)")
_DESCRIPTOR: Final = re.compile(r"(\d+)<([^>]*)>")
_STRING: Final = re.compile(r'"([^"]*)"')


def read_trace(trace: Path, root: Path) -> list[Call]:
    """The calls that succeeded, in the order in which they ended."""
    calls: list[Call] = []
    for text in _whole_lines(trace):
        parsed = _CALL.match(text)
        if parsed is not None:
            calls += _interpret(parsed[1], parsed[2], str(root))
    return calls


def _whole_lines(trace: Path) -> Iterator[str]:
    """Calls during which another thread ran come in two pieces; here they are whole again."""
    begun: dict[str, str] = {}
    with trace.open(errors="replace") as lines:
        for line in lines:
            process, text = line.rstrip("\n").split(None, 1)
            if text.endswith("<unfinished ...>"):
                begun[process] = text.removesuffix("<unfinished ...>")
                continue
            resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", text)
            yield text if resumed is None else begun.pop(process, "") + resumed[1]


def _interpret(name: str, arguments: str, root: str) -> Iterator[Call]:
    strings = [_unescape(string) for string in _STRING.findall(arguments)]
    descriptor = _DESCRIPTOR.match(arguments)
    path = _unescape(descriptor[2]).decode() if descriptor else strings[0].decode() if strings else ""
    if name == "write" and descriptor and descriptor[1] == "1":
        yield Call("say", "", strings[0])
    elif not path.startswith(root):
        return
    elif name == "write":
        yield Call("write", path, strings[0])
    elif name in ("fdatasync", "fsync"):
        yield Call("fsync", path)
    elif name.startswith("rename"):
        yield Call("rename", path, target=strings[1].decode())
    elif name.startswith("mkdir"):
        yield Call("mkdir", path)
    elif name in ("unlink", "unlinkat", "rmdir"):
        yield Call("unlink", path)
    elif "O_CREAT" in arguments:
        yield Call("create", path, b"truncate" if "O_TRUNC" in arguments else b"")


def _unescape(text: str) -> bytes:
    """strace -xx writes strings as \\x41\\x42, but not the paths of all versions' descriptors."""
    if not text.startswith("\\x"):
        return text.encode()
    return bytes.fromhex(text.replace("\\x", ""))
