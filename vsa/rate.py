"""How fast the streams of one process read, all together, for people who must leave room for others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Rate:
    """So many bytes a second, shared by all who take from it; safe for many threads."""

    def __init__(self, bytes_per_second: int = 0, *, clock: Callable[[], float] = time.monotonic) -> None:
        """0: no limit. `clock` counts seconds and never goes back."""
        self._bytes_per_second = bytes_per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = 0.0

    def take(self, count: int, *, wait: Callable[[float], None]) -> None:
        """Return when so many bytes may be asked for. `wait` sleeps for so many seconds, and may raise.

        Whoever comes next waits for as long as these take at the rate. What was not used is not saved up:
        after a pause nobody reads faster.
        """
        if not self._bytes_per_second:
            return
        with self._lock:
            now = self._clock()
            turn = max(self._free_at, now)
            self._free_at = turn + count / self._bytes_per_second
        if turn > now:
            wait(turn - now)


UNLIMITED = Rate()
