"""Whose turn it is on the event loop: clients' work is let in a few pieces a pass, so that no number of clients and no
long answer holds up the node."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary

TURN_S: Final = 0.003  # what a long answer may do at a stretch
PIECES_PER_PASS: Final = 4
PIECE_BYTES: Final = 8_192  # of a request that is one piece of work; a longer one is several

_Line = deque[tuple[Callable[[], None], int]]


class Turnstile:
    """Lets in so many a pass of the event loop; who comes later stands in line, and goes first in the next pass.

    A pass is then about as long as what was let in takes, however many wait. Clients with reserved places stand in a
    line of their own; while both wait, the two have turns. Who may stand in line is for the caller to limit: the door
    counts connections, and the requests at work of each.
    """

    def __init__(self, per_pass: int, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._per_pass = per_pass
        self._room = per_pass
        self._lines: tuple[_Line, _Line] = deque(), deque()  # of the others, of those with reserved places
        self._is_reserved_turn = False
        self._is_turning = False

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def enter(self, go: Callable[[], None], pieces: int = 1, *, is_reserved: bool = False) -> bool:
        """Whether there is room in this pass; if not, `go` is called in a later one. What is more pieces than a pass
        takes has one to itself."""
        if self._lines[is_reserved] or self._room <= 0:
            self._lines[is_reserved].append((go, pieces))
            return False
        self._room -= pieces
        if not self._is_turning:
            self._is_turning = True
            self._loop.call_soon(self._next_pass)
        return True

    async def turn(self, pieces: int = 1, *, is_reserved: bool = False) -> None:
        """Waits in line, if there is one."""
        came: asyncio.Future[None] = self._loop.create_future()

        def go() -> None:
            if not came.done():  # else the client is gone
                came.set_result(None)

        if not self.enter(go, pieces, is_reserved=is_reserved):
            await came

    def _next_pass(self) -> None:
        self._room = self._per_pass
        while self._room > 0 and (line := self._next_line()):
            go, pieces = line.popleft()
            self._room -= pieces
            go()
        self._is_turning = self._room < self._per_pass
        if self._is_turning:
            self._loop.call_soon(self._next_pass)

    def _next_line(self) -> _Line:
        self._is_reserved_turn = not self._is_reserved_turn
        return self._lines[self._is_reserved_turn] or self._lines[not self._is_reserved_turn]


_OF_LOOP: "Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Turnstile]]" = WeakKeyDictionary()


def turnstile() -> Turnstile:
    """The one that all clients' work on this event loop goes through."""
    loop = asyncio.get_running_loop()
    found = _OF_LOOP.get(loop)
    if found is None:
        found = _OF_LOOP[loop] = Turnstile(PIECES_PER_PASS, loop)
    return found


class Turns:
    """Call `pause` at each step of a long piece of work: it stands in line again once its turn is over."""

    __slots__ = ("_ends", "_loop", "_turnstile")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._turnstile = turnstile()
        self._ends = self._loop.time() + TURN_S

    async def pause(self) -> None:
        if self._loop.time() > self._ends:
            await asyncio.sleep(0)
            await self._turnstile.turn()
            self._ends = self._loop.time() + TURN_S
