"""What becomes of a message on its way: lost, doubled, late, out of order, or cut off."""

from dataclasses import dataclass, field
from random import Random

Link = tuple[int, int]  # from, to


@dataclass
class Conditions:
    """The weather. Shares are in per mille, times in ms."""

    loss: int = 0
    duplication: int = 0
    delay_ms: tuple[int, int] = (1, 5)
    spikes: int = 0
    spike_ms: int = 10_000
    cut: frozenset[Link] = frozenset()
    flap_ms: int = 0  # the cut comes and goes with this half period; 0: it stays


@dataclass
class Network:
    """Links between machines, by number. Draws from its own source of chance."""

    chance: Random
    size: int
    now: Conditions = field(default_factory=Conditions)

    def is_open(self, source: int, to: int, at_ms: int) -> bool:
        now = self.now
        return (source, to) not in now.cut or bool(now.flap_ms and at_ms // now.flap_ms % 2)

    def delays(self, source: int, to: int, at_ms: int) -> list[int]:
        """After how long each copy arrives; none if the message is lost."""
        now, chance = self.now, self.chance
        if now.cut and not self.is_open(source, to, at_ms):
            return []
        if now.loss and chance.randrange(1000) < now.loss:
            return []
        copies = 2 if now.duplication and chance.randrange(1000) < now.duplication else 1
        return [self._delay() for _ in range(copies)]

    def _delay(self) -> int:
        now, chance = self.now, self.chance
        if now.spikes and chance.randrange(1000) < now.spikes:
            return chance.randrange(now.spike_ms) + 1
        low, high = now.delay_ms
        return low if low == high else low + int(chance.random() * (high - low))

    def cut_halves(self) -> None:
        side = {each for each in range(self.size) if self.chance.random() < 0.5}
        self._cut({(a, b) for a in range(self.size) for b in range(self.size) if (a in side) != (b in side)})

    def cut_alone(self, number: int) -> None:
        """One machine hears and reaches nobody."""
        self._cut({link for other in range(self.size) for link in ((number, other), (other, number))})

    def cut_all(self) -> None:
        """Nobody reaches anybody."""
        self._cut({(a, b) for a in range(self.size) for b in range(self.size)})

    def cut_one_way(self, number: int) -> None:
        """One machine is heard and hears nobody, or the other way round."""
        hears = self.chance.random() < 0.5
        self._cut({(number, other) if hears else (other, number) for other in range(self.size)})

    def cut_bridge(self) -> None:
        """Two halves that only one machine joins."""
        bridge = self.chance.randrange(self.size)
        self.cut_halves()
        self._cut({link for link in self.now.cut if bridge not in link})

    def cut_links(self) -> None:
        """Single directions here and there."""
        pick = self.chance.randrange
        self._cut({(pick(self.size), pick(self.size)) for _ in range(self.size)})

    def flap(self) -> None:
        self.now.flap_ms = self.chance.choice([50, 300, 1000, 4000])

    def join(self) -> None:
        self.now.cut, self.now.flap_ms = frozenset(), 0

    def _cut(self, links: set[Link]) -> None:
        self.now.cut = frozenset(links)
