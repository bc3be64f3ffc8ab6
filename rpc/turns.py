"""Long answers give the event loop back now and then, so that no request holds up the node."""

import asyncio
from typing import Final

TURN_S: Final = 0.005


class Turns:
    """Call `pause` at each step of a long piece of work: it lets others run once our turn is over."""

    __slots__ = ("_ends", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + TURN_S

    async def pause(self) -> None:
        if self._loop.time() > self._ends:
            await asyncio.sleep(0)
            self._ends = self._loop.time() + TURN_S
