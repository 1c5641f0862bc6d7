"""What Azure says to have deleted, and whether it is gone: looked for by its name, again until it is.

A deletion that ended says one thing, and what Azure shows may be another: it answers from copies that lag
behind. Lists show what is gone for a quarter of an hour; a look at its name is better, and may lag as well
(github.com/Azure/azure-rest-api-specs, issues 18993, 21221 and 38962). So each name is asked for, which costs
one request for what was deleted, and more only if it is still shown or could not be looked at. A look that
fails says nothing: what Azure says to have deleted and nobody could look at is not called pending.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vsa.azure.budget import cleaning
from vsa.errors import RunStopped, TryAgainLater, VsaError
from vsa.model import SourceDisk
from vsa.stop import Stop, waiting
from vsa.threads import Threads

LOOK_AGAIN = (1.0, 2.0, 4.0)
"""Seconds between the looks, for all together. A job that is told to end has 25 for all its cleaning up."""
LOOKS_AT_ONCE = 8
LONGEST_TURN = 5.0
"""Seconds that one look waits for its turn where Azure takes no more requests for now."""
LONGEST_LOOKING = 60.0
"""Seconds after which no look begins any more."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Departure:
    """A thing that Azure says to have deleted: of which disk, what it is, and how to look for it."""

    disk: SourceDisk
    what: str
    is_shown: Callable[[], bool]


class Departures:
    """What Azure said to have deleted, and nobody has looked for since."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts seconds and never goes back."""
        self._clock = clock
        self._said: dict[tuple[str, str], Departure] = {}

    def add(self, disk: SourceDisk, what: str, is_shown: Callable[[], bool]) -> None:
        self._said[disk.key, what] = Departure(disk, what, is_shown)

    def has(self, disk: SourceDisk, what: str) -> bool:
        """Whether the thing was deleted, and nobody has looked for it since."""
        return (disk.key, what) in self._said

    def still_there(self, stop: Stop) -> list[tuple[Departure, VsaError]]:
        """Look for all of it until it is gone, or for as long as that is bearable; what Azure still shows,
        and what to say of it. What could not be looked at is logged.

        All of it waits together, in a few threads, so many take little longer than one. A stop ends it, as it
        ends other cleaning up.
        """
        items = list(self._said.values())
        self._said.clear()
        if not items:
            return []
        looking = _Looking(stop, self._clock, self._clock() + LONGEST_LOOKING)
        left = [_Unsettled(item) for item in items]
        with cleaning(), Threads(min(LOOKS_AT_ONCE, len(left))) as pool:
            for delay in (*LOOK_AGAIN, None):
                left = [
                    of
                    for of, is_gone in zip(left, pool.map(looking.is_gone, left), strict=True)
                    if not is_gone
                ]
                if delay is None or not _waited(delay, left, stop):
                    break
        for of in left:
            if not of.seen:
                _log.warning(
                    "%s is deleted, as Azure says; it could not be looked at: %s", of.item.what, of.why
                )
        return [(of.item, _unwilling(of.item)) for of in left if of.seen]


@dataclass
class _Unsettled:
    """A departure that is not known to be gone: whether it was `seen` since, and `why` the last look at it
    told nothing. One that is `refused` is looked at no more: time does not help."""

    item: Departure
    seen: bool = False
    why: VsaError | None = None
    refused: bool = False


@dataclass(frozen=True)
class _Looking:
    """One call's looks, none of which begins after `until` by the clock."""

    stop: Stop
    clock: Callable[[], float]
    until: float

    def is_gone(self, of: _Unsettled) -> bool:
        """One look. One that fails is no more than that: another one comes with the next round."""
        if of.refused:
            return False
        try:
            self.stop.check()
            if self.clock() > self.until:
                raise TryAgainLater(f"no time was left for it after {LONGEST_LOOKING:.0f} s")
            with waiting(_Turn(self.stop).wait):
                of.seen = of.item.is_shown()
        except VsaError as error:
            of.why, of.refused = error, not isinstance(error, (TryAgainLater, RunStopped))
            return False
        return not of.seen


class _Turn:
    """The waits of one look: not for as long as Azure may wish."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._left = LONGEST_TURN

    def wait(self, seconds: float) -> None:
        self._left -= seconds
        if self._left < 0:
            raise TryAgainLater("Azure takes no more requests for now")
        self._stop.wait(seconds)


def _waited(seconds: float, left: Sequence[_Unsettled], stop: Stop) -> bool:
    """Whether another look can help, and there was time to wait for it."""
    if all(of.refused for of in left):
        return False
    names = ", ".join(of.item.what for of in left)
    _log.warning("Azure says that these are deleted, and has not shown it yet; looking again: %s", names)
    try:
        stop.wait(seconds)
    except RunStopped:
        return False
    return True


def _unwilling(item: Departure) -> TryAgainLater:
    return TryAgainLater(f"delete {item.what}: Azure says that it is done, and still shows it")
