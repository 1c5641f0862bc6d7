"""Calls that are repeated while their outcome is unclear; no create takes another's object for its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from vsa.errors import MediaConflict, ObjectMissing, RunStopped, TryAgainLater
from vsa.media.store import Buffer, Store
from vsa.ranges import MIB, ByteRange
from vsa.stop import wait_here

DELAYS = (0.5, 2.0, 8.0)
"""Seconds before each repetition: a service that is throttling or moving a partition needs a few."""

LONG_ENOUGH = 30.0
"""Seconds: the client repeats most of what only reads by itself; a call that took so long, of a service that
is silent or busy, is not repeated here. Of a list: since its last name."""

T = TypeVar("T")
_PIECE = 8 * MIB
_log = logging.getLogger(__name__)


class RetryingStore:
    """Repeats what raises TryAgainLater. No call does harm if it is made twice: names never come back.

    A create that is repeated and refused may have been refused by our own first success: then the object
    itself is read, and if it holds our very bytes, the create has succeeded. The client repeats reads by
    itself, but not those whose answer breaks off in a list or in a refusal, such as "not found".

    It waits as whoever calls does: where that hears a stop or the end of its time, no call is repeated any
    more, and RunStopped says so, and what was unclear.
    """

    def __init__(
        self,
        store: Store,
        *,
        delays: Sequence[float] = DELAYS,
        sleep: Callable[[float], None] = wait_here,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._delays = delays
        self._sleep = sleep
        self._clock = clock

    @property
    def location(self) -> str:
        return self._store.location

    def create(self, name: str, parts: Sequence[Buffer]) -> None:
        try:
            self._store.create(name, parts)
        except TryAgainLater as error:
            self._create_again(name, parts, error)

    def _create_again(self, name: str, parts: Sequence[Buffer], unclear: TryAgainLater) -> None:
        for delay in self._delays:
            self._wait(delay, unclear)
            try:
                return self._store.create(name, parts)
            except MediaConflict:
                if not self._holds(name, parts):
                    raise
                return None
            except TryAgainLater as error:
                unclear = error
        raise unclear

    def _holds(self, name: str, parts: Sequence[Buffer]) -> bool:
        """Whether the object is exactly these bytes."""
        views = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
        try:
            if self.size(name) != sum(view.nbytes for view in views):
                return False
            return all(self.read(name, at) == piece for at, piece in _pieces(views))
        except ObjectMissing:
            return False

    def read(self, name: str, at: ByteRange | None = None, *, limit: int | None = None) -> bytes:
        return self.repeated(lambda: self._store.read(name, at, limit=limit))

    def size(self, name: str) -> int:
        return self.repeated(lambda: self._store.size(name))

    def delete(self, name: str) -> None:
        self.repeated(lambda: self._store.delete(name))

    def prepare_for_writing(self) -> None:
        self.repeated(self._store.prepare_for_writing)

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(self.repeated(lambda: list(self._store.folders(prefix))))

    def names(self, prefix: str, *, after: str = "") -> Iterator[str]:
        """Where a list breaks off it comes anew, from its beginning: it may be too long to be held, and comes
        in no promised order, so that no name tells which have come.

        It is given up only where it does not get on: each name more than ever came begins the repetitions
        anew, and what counts as long is the time since the last name was taken, by whoever asked for it.
        """
        patience, most = _Patience(self._delays, self._clock), 0
        while True:
            came = 0
            try:
                for name in self._store.names(prefix, after=after):
                    yield name
                    came += 1
                    patience.heard()
                    if came > most:
                        most = came
                        patience.renew()
            except TryAgainLater as unclear:
                self._wait(patience.delay(unclear), unclear)
            else:
                return

    def repeated(self, call: Callable[[], T]) -> T:
        """What comes of a call that does no harm if it is made twice: again while that is unclear."""
        patience = _Patience(self._delays, self._clock)
        while True:
            try:
                return call()
            except TryAgainLater as unclear:
                self._wait(patience.delay(unclear), unclear)

    def _wait(self, seconds: float, unclear: TryAgainLater) -> None:
        _log.warning("%s; trying again in %.1f s", unclear, seconds)
        try:
            self._sleep(seconds)
        except RunStopped as stopped:
            raise RunStopped(f"{stopped}; before that: {unclear}") from unclear


class _Patience:
    """For how many failures of one call, and for how long, it is repeated."""

    def __init__(self, delays: Sequence[float], clock: Callable[[], float]) -> None:
        self._all = delays
        self._clock = clock
        self.renew()
        self.heard()

    def renew(self) -> None:
        """All repetitions are left again."""
        self._left = iter(self._all)

    def heard(self) -> None:
        """Something came of it: the time begins anew."""
        self._since = self._clock()

    def delay(self, unclear: TryAgainLater) -> float:
        """Seconds before the next repetition; raises what was unclear if there is none."""
        delay = next(self._left, None)
        if delay is None or self._clock() - self._since > LONG_ENOUGH:
            raise unclear
        return delay


def _pieces(views: Sequence[memoryview]) -> Iterator[tuple[ByteRange, memoryview]]:
    """The bytes in pieces that fit into memory twice, each with its place in the object."""
    offset = 0
    for view in views:
        for start in range(0, view.nbytes, _PIECE):
            piece = view[start : start + _PIECE]
            yield ByteRange(offset, offset + piece.nbytes), piece
            offset += piece.nbytes
