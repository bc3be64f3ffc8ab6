"""Who misbehaved stays out for a while, longer each time. A validator never for long: the chain may need it."""

from typing import Final

LADDER_MS: Final = (1_000, 60_000, 3_600_000)
LADDER_OF_VALIDATORS_MS: Final = (1_000, 5_000)
FORGIVEN_AFTER_MS: Final = 3_600_000  # of good conduct after a ban
BANS_MAX: Final = 1_024  # then those that end first are forgotten


class Bans:
    """By the peer's name: until when it stays out, and how often it had to before."""

    __slots__ = ("_bans",)

    def __init__(self) -> None:
        self._bans: dict[str, tuple[int, int]] = {}  # (until, how many)

    def add(self, name: str, *, is_validator: bool, now_ms: int) -> int:
        """For how many ms it is banned now."""
        until_ms, count = self._bans.get(name, (0, 0))
        if now_ms >= until_ms + FORGIVEN_AFTER_MS:
            count = 0
        ladder = LADDER_OF_VALIDATORS_MS if is_validator else LADDER_MS
        ban_ms = ladder[min(count, len(ladder) - 1)]
        self._bans[name] = (now_ms + ban_ms, count + 1)
        if len(self._bans) > BANS_MAX:
            del self._bans[min(self._bans, key=lambda each: self._bans[each][0])]
        return ban_ms

    def left_ms(self, name: str, now_ms: int) -> int:
        """0 for who is not banned."""
        return max(self._bans.get(name, (0, 0))[0] - now_ms, 0)
