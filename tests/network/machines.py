"""Machines with a name, a network namespace, a home directory and a terminal, on which a person could type a guide."""

import http.client
import json
import os
import re
import select
import signal
import ssl
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from tests.live_node import GENESIS
from tests.network.namespaces import INTERFACE, Namespaces

SECONDS_MAX: Final = 90.0  # for what is typed at once
RPC_PORT: Final = 8545
PROMPT: Final = "-- typed --"
READ_BYTES: Final = 65_536

CTT: Final = f"""\
#!/bin/sh
exec {sys.executable} -P -m node.cli.main "$@"
"""
# A file of a machine lies in its home directory: all are on this one.
SCP: Final = """\
#!/bin/bash
words=()
for word; do
    [[ $word == *:* ]] && word=$MACHINES/${word%%:*}/${word#*:}
    words+=("$word")
done
exec cp "${words[@]}"
"""


class Step(NamedTuple):
    """What a guide has typed on some machines, one after the other."""

    section: str
    machines: tuple[str, ...]  # none: it is only shown
    script: str


def read_steps(text: str) -> Iterator[Step]:
    """A guide's blocks of shell. The line before one says where it is typed: 'On **alpha** and **beta**:'."""
    section = said = ""
    script: list[str] | None = None
    for line in text.splitlines():
        if script is not None:
            if line == "```":
                names = re.findall(r"\*\*(\w+)\*\*", said) if said.startswith("On **") else []
                yield Step(section, tuple(names), "\n".join(script))
                script, said = None, ""
            else:
                script.append(line)
        elif line == "```sh":
            script = []
        elif line.startswith("## "):
            section = line.removeprefix("## ")
        elif line:
            said = line


class Machines:
    """A context manager; at its end nothing of them runs any more."""

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        self._directory = directory
        self._names = list(names)
        self._hosts = Namespaces(len(names))
        self._terminals: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self._hosts.__enter__()
        try:
            programs = self._directory / ".programs"
            programs.mkdir()
            for name, text in (("ctt", CTT), ("scp", SCP)):
                (programs / name).write_text(text)
                (programs / name).chmod(0o755)
            for name in self._names:
                self.home(name).mkdir()
                self._terminals[name] = self._open(name, programs)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for name in self._names:
                self._end_all(name)
            for terminal in self._terminals.values():
                terminal.communicate()
        finally:
            self._hosts.__exit__(kind, fault, trace)

    def home(self, name: str) -> Path:
        return self._directory / name

    def type(self, name: str, script: str) -> str:
        """What the terminal shows until all of it has ended well. Raises: AssertionError with that otherwise."""
        terminal = self._terminals[name]
        assert terminal.stdin is not None
        step = self.home(name) / ".typed"
        step.write_text(f"{script}\n")
        terminal.stdin.write(f"source .typed < /dev/null; echo; echo '{PROMPT}'\n".encode())
        terminal.stdin.flush()
        shown = self._read(terminal)
        assert shown.endswith(f"{PROMPT}\n"), f"on {name}:\n{script}\n{'-' * 80}\n{shown}\n{self._logs()}"
        return shown.removesuffix(f"\n{PROMPT}\n")

    def play(self, steps: Iterable[Step]) -> dict[str, str]:
        """What each machine's terminal showed."""
        shown: dict[str, str] = defaultdict(str)
        for step in steps:
            for name in step.machines:
                shown[name] += self.type(name, step.script)
        return shown

    def ask(self, name: str, method: str, *params: Any) -> Any:
        """A JSON-RPC call on the machine itself, at the door that its node has."""
        certificate = self.home(name) / "rpc.pem"
        host = self._hosts.address(self._names.index(name)) if certificate.exists() else "127.0.0.1"
        socket = self._hosts.make_socket(self._names.index(name))
        socket.settimeout(SECONDS_MAX)
        socket.connect((host, RPC_PORT))
        if certificate.exists():
            socket = ssl.create_default_context(cafile=str(certificate)).wrap_socket(
                socket, server_hostname=host
            )
        connection = http.client.HTTPConnection(host, RPC_PORT)
        connection.sock = socket
        try:
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
            connection.request("POST", "/", body, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert "error" not in answer, answer["error"]["message"]
        return answer["result"]

    def shape(self, name: str, *queue: str) -> None:
        """Gives what the machine sends a queue of this kind (tc). Raises: subprocess.CalledProcessError."""
        host = self._hosts.name(self._names.index(name))
        command = ["tc", "-n", host, "qdisc", "replace", "dev", INTERFACE, "root", *queue]
        subprocess.run(command, capture_output=True, text=True, check=True)

    # How they are made

    def _open(self, name: str, programs: Path) -> "subprocess.Popen[bytes]":
        environment = os.environ | {
            "HOME": str(self.home(name)),
            "MACHINES": str(self._directory),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(GENESIS.parent),
        }
        bash = self._hosts.command(
            self._names.index(name), "bash", "--norc", "--noprofile", "-euo", "pipefail"
        )
        return subprocess.Popen(
            bash,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.home(name),
            env=environment,
        )

    def _read(self, terminal: "subprocess.Popen[bytes]") -> str:
        """Up to the prompt, the end of the shell, which is what a failure comes to, or the end of patience."""
        assert terminal.stdout is not None
        deadline, shown = time.monotonic() + SECONDS_MAX, b""
        while not shown.endswith(f"{PROMPT}\n".encode()):
            ready, _, _ = select.select([terminal.stdout], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(terminal.stdout.fileno(), READ_BYTES) if ready else b""
            if not piece:
                break
            shown += piece
        return shown.decode(errors="replace")

    def _logs(self) -> str:
        """The last of what each node said."""
        paths = [self.home(name) / "node.log" for name in self._names]
        return "\n".join(f"{path}:\n{path.read_text()[-1_500:]}" for path in paths if path.exists())

    def _end_all(self, name: str) -> None:
        """Every process of the namespace, which has none but those of the terminal."""
        command = ["ip", "netns", "pids", self._hosts.name(self._names.index(name))]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        for number in found.stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)
