"""Creates that are repeated while their outcome is unclear, and never take another's object for their own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence

from vsa.errors import MediaConflict, ObjectMissing, TryAgainLater
from vsa.media.store import Buffer, Store
from vsa.ranges import MIB, ByteRange

DELAYS = (0.5, 2.0, 8.0)
"""Seconds before each repetition: a service that is throttling or moving a partition needs a few."""

_PIECE = 8 * MIB
_log = logging.getLogger(__name__)


class RetryingStore:
    """Repeats a create that raises TryAgainLater; everything else passes through.

    A repetition that is refused may have been refused by our own first success: then the object itself is
    read, and if it holds our very bytes, the create has succeeded. Reads repeat themselves in the client.
    """

    def __init__(
        self,
        store: Store,
        *,
        delays: Sequence[float] = DELAYS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._delays = delays
        self._sleep = sleep

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
            _log.warning("%s; trying again in %.1f s", unclear, delay)
            self._sleep(delay)
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
            if self._store.size(name) != sum(view.nbytes for view in views):
                return False
            return all(self._store.read(name, at) == piece for at, piece in _pieces(views))
        except ObjectMissing:
            return False

    def read(self, name: str, at: ByteRange | None = None, *, limit: int | None = None) -> bytes:
        return self._store.read(name, at, limit=limit)

    def size(self, name: str) -> int:
        return self._store.size(name)

    def delete(self, name: str) -> None:
        self._store.delete(name)

    def prepare_for_writing(self) -> None:
        self._store.prepare_for_writing()

    def folders(self, prefix: str) -> Iterator[str]:
        return self._store.folders(prefix)

    def names(self, prefix: str, *, after: str = "") -> Iterator[str]:
        return self._store.names(prefix, after=after)


def _pieces(views: Sequence[memoryview]) -> Iterator[tuple[ByteRange, memoryview]]:
    """The bytes in pieces that fit into memory twice, each with its place in the object."""
    offset = 0
    for view in views:
        for start in range(0, view.nbytes, _PIECE):
            piece = view[start : start + _PIECE]
            yield ByteRange(offset, offset + piece.nbytes), piece
            offset += piece.nbytes
