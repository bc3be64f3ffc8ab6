"""One line a peer a minute: nobody fills the log by knocking."""

import logging
from typing import Final

PAUSE_MS: Final = 60_000
SUBJECTS_MAX: Final = 1_024  # then the one that was quiet longest is forgotten


class Chatter:
    """Writes lines about subjects, and counts those that it leaves out."""

    __slots__ = ("_log", "_said")

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: dict[tuple[int, str], tuple[int, int]] = {}  # (when, how many left out since)

    def say(self, level: int, subject: str, text: str, now_ms: int) -> None:
        said_ms, left_out = self._said.get((level, subject), (now_ms - PAUSE_MS, 0))
        if now_ms - said_ms < PAUSE_MS:
            self._said[level, subject] = (said_ms, left_out + 1)
            return
        more = f" ({left_out} more in the last minutes)" if left_out else ""
        self._log.log(level, "%(peer)s: %(event)s%(more)s", {"peer": subject, "event": text, "more": more})
        self._said.pop((level, subject), None)
        self._said[level, subject] = (now_ms, 0)
        if len(self._said) > SUBJECTS_MAX:
            del self._said[next(iter(self._said))]
