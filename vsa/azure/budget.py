"""How often one place of Azure may be asked, shared by all who ask it from this process.

Azure counts requests in token buckets. Of Resource Manager each subscription, identity and region has one of
250 tokens for reads, refilled by 25 a second, and one of 200 each for writes and for deletes, refilled by 10;
resource providers have more of their own
(https://learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling). An empty
one answers 429 and says when to come again; a storage account answers 503 ServerBusy
(https://learn.microsoft.com/azure/storage/blobs/scalability-targets). What is known of a bucket here is that
answer. So when one caller is refused all wait, and afterwards they come back one by one.

Cleaning up has a share of its own: what keeps reads waiting keeps no snapshot from being deleted. Only its
own refusals stop it, and then it goes on before the others do.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum

_log = logging.getLogger(__name__)

SPACING_SECONDS = 0.1
"""Between two requests of a kind after a refusal: the slowest bucket's refill. Another one doubles it."""
RECOVERY = 0.9
"""What an answer makes of that spacing: of what was tried, this had the fewest refusals in the least time."""
LEAST_SPACING_SECONDS = 0.01
"""Below that nobody is held back any more."""
MOST_SPACING_SECONDS = 2.0
LOOK_SECONDS = 1.0
"""How long nobody sleeps longer without a look at the clock: machines are put to sleep, too."""
HEAD_START_SECONDS = 0.5
"""How much sooner than all else cleaning up goes on when it was refused itself."""
LONGEST_PAUSE_SECONDS = 900.0
"""However long Azure wishes for."""
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 1.0, 32.0
"""Where Azure names none; it doubles with each refusal that follows another."""


class Purpose(StrEnum):
    """What a request is for."""

    WORK = "work"
    CLEANUP = "cleanup"


_purpose: ContextVar[Purpose] = ContextVar("purpose", default=Purpose.WORK)


def current_purpose() -> Purpose:
    return _purpose.get()


@contextmanager
def cleaning() -> Iterator[None]:
    """What this thread asks for inside is cleaning up."""
    token = _purpose.set(Purpose.CLEANUP)
    try:
        yield
    finally:
        _purpose.reset(token)


@dataclass(frozen=True)
class Turn:
    """One request's turn: `pauses` had been made when it came."""

    purpose: Purpose
    pauses: int


@dataclass
class _Lane:
    """Those who wait for one purpose, in the order in which they came; times are the clock's, in seconds.

    What they hold is a place, not a time: when answers let them come closer, or one gives up, all move up.
    """

    opens_at: float = 0.0
    last: float = -math.inf
    """When somebody had a turn."""
    line: list[object] = field(default_factory=list)

    def due(self, place: object, spacing: float) -> float:
        """When it is the turn of this place, as things are. One before it that oversleeps holds up nobody."""
        return max(self.opens_at, self.last + spacing) + self.line.index(place) * spacing

    def close(self, until: float) -> None:
        self.opens_at = max(self.opens_at, until)


class Budget:
    """The shared budget of one place. Thread-safe."""

    def __init__(self, place: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`place` is what messages call it; `clock` counts seconds and never goes back."""
        self._place = place
        self._clock = clock
        self._lock = threading.Lock()
        self._lanes = {purpose: _Lane() for purpose in Purpose}
        self._spacing = 0.0
        self._refused_in_a_row = 0
        self._pauses = 0

    def take(self, purpose: Purpose, *, wait: Callable[[float], None]) -> Turn:
        """Return when it is this caller's turn. `wait` sleeps for so many seconds, and may raise."""
        lane, place = self._lanes[purpose], object()
        with self._lock:
            lane.line.append(place)
        try:
            while True:
                with self._lock:
                    now = self._clock()
                    seconds = lane.due(place, self._spacing) - now
                    if seconds <= 0:
                        lane.last = now
                        return Turn(purpose, self._pauses)
                wait(min(seconds, LOOK_SECONDS))
        finally:
            with self._lock:
                lane.line.remove(place)

    def refused(self, turn: Turn, retry_after: float | None) -> None:
        """Azure has refused a request for coming too often; `retry_after` is its wish in seconds, if any."""
        with self._lock:
            now = self._clock()
            if turn.pauses == self._pauses:
                self._pauses += 1
                self._refused_in_a_row += 1
                self._spacing = min(max(2 * self._spacing, SPACING_SECONDS), MOST_SPACING_SECONDS)
            # Those that were under way when the first was refused say nothing new, but may wish for more.
            until = now + self._pause(retry_after)
            told = until > self._lanes[Purpose.WORK].opens_at
            if turn.purpose is Purpose.CLEANUP:
                self._lanes[Purpose.CLEANUP].close(until)
                until += HEAD_START_SECONDS
            self._lanes[Purpose.WORK].close(until)
        if told:
            _log.warning(
                "%s takes no more requests for now: all of this process wait for %.1f s%s",
                self._place,
                until - now,
                "" if turn.purpose is Purpose.CLEANUP else ", but for what cleans up",
            )

    def answered(self, turn: Turn) -> None:
        """Azure has answered a request, whatever it said."""
        with self._lock:
            if turn.pauses == self._pauses:
                self._refused_in_a_row = 0
                spacing = self._spacing * RECOVERY
                self._spacing = spacing if spacing >= LEAST_SPACING_SECONDS else 0.0

    def _pause(self, wish: float | None) -> float:
        if wish is not None:
            return min(wish, LONGEST_PAUSE_SECONDS)
        doubled: float = FIRST_PAUSE_SECONDS * 2 ** min(self._refused_in_a_row - 1, 10)
        return min(doubled, LAST_PAUSE_SECONDS)
