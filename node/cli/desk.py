"""Where a person, or a script, stands before a development network: what may be done to which validator, by a key or by
a line, and what came of it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from node.cli.member import Member, Refused, State

NOTICES_KEPT: Final = 3
ACTS: Final[dict[str, Callable[[Member], Awaitable[None] | None]]] = {
    "kill": Member.kill,
    "pause": Member.pause,
    "resume": Member.resume,
    "cut": Member.cut,
    "join": Member.join,
    "restart": Member.restart,
}
DONE: Final = {
    "kill": "killed; r starts it",
    "pause": "paused; p lets it go on",
    "resume": "goes on",
    "cut": "is cut off from its peers; c lets it back",
    "join": "is with its peers again",
    "restart": "is restarted",
}


class Desk:
    """What is chosen on a screen, and what happened last."""

    def __init__(self, members: Sequence[Member], stopping: asyncio.Event) -> None:
        self.members = members
        self.chosen = 0
        self.is_helping = False
        self.notices: list[str] = []
        self._stopping = stopping
        self._acts: set[asyncio.Task[None]] = set()

    def tell(self, text: str) -> None:
        self.notices = [*self.notices, text][-NOTICES_KEPT:]

    def on_key(self, key: str) -> None:
        """A key of the screen: a number or arrow chooses, k p c r act, ? shows the help, q ends it all."""
        if key.isdecimal() and 1 <= int(key) <= len(self.members):
            self.chosen = int(key) - 1
        elif key in ("up", "down"):
            self.chosen = (self.chosen + (1 if key == "down" else -1)) % len(self.members)
        elif key == "?":
            self.is_helping = not self.is_helping
        elif key == "q":
            self._stopping.set()
        elif name := _act_of(key, self.members[self.chosen].state):
            self._spawn(self._act_and_tell(name, self.chosen))

    async def on_line(self, line: str) -> dict[str, Any]:
        """An act with a validator's number, or `quit`; the answer has `act` and `validator`, or `error`."""
        words = line.split()
        if words == ["quit"]:
            self._stopping.set()
            return {"act": "quit"}
        if len(words) != 2 or words[0] not in ACTS:
            return {"error": f"{line.strip()[:80]!r}: one of {', '.join(ACTS)} and a number, or quit"}
        name, number = words
        if not (number.isdecimal() and len(number) < 4 and 1 <= int(number) <= len(self.members)):
            return {"error": f"no validator {number[:20]}: 1 to {len(self.members)}"}
        try:
            await self._act(name, int(number) - 1)
        except Refused as refusal:
            return {"error": str(refusal)}
        return {"act": name, "validator": int(number)}

    async def _act_and_tell(self, name: str, place: int) -> None:
        try:
            await self._act(name, place)
        except Refused as refusal:
            self.tell(str(refusal))
        else:
            self.tell(f"{self.members[place].name} {DONE[name]}")

    async def _act(self, name: str, place: int) -> None:
        """Raises: Refused."""
        try:
            if (pending := ACTS[name](self.members[place])) is not None:
                await pending
        except ProcessLookupError:
            raise Refused(f"{self.members[place].name} has just ended") from None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._acts.add(task)
        task.add_done_callback(self._acts.discard)


def _act_of(key: str, state: State) -> str | None:
    """p and c undo what they did."""
    match key:
        case "p":
            return "resume" if state is State.PAUSED else "pause"
        case "c":
            return "join" if state is State.CUT_OFF else "cut"
        case _:
            return {"k": "kill", "r": "restart"}.get(key)
