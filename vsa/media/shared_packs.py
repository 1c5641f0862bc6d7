"""Packs that several disks may refer to, while they fill and after they are stored.

Clones are read at the same time, so an extent can be referred to as soon as it lies in a pack, whoever fills
it. Whoever refers to a pack makes sure that it is stored before an index says so.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from typing import NamedTuple, Protocol

from vsa.errors import TryAgainLater, VsaError
from vsa.fault_points import FaultPoint, reached
from vsa.media.frames import Fingerprint
from vsa.media.index import PackRef
from vsa.media.pack import Frame, PackBuilder
from vsa.media.store import Buffer, Store

_log = logging.getLogger(__name__)


class SharedPack(Protocol):
    """A pack that rows may refer to."""

    @property
    def name(self) -> str: ...

    def refer(self, stream: object) -> bool:
        """Whether new rows of a stream may refer to it. From then on it is kept until it is stored."""
        ...

    def store(self) -> PackRef:
        """Make sure that it is stored. Raises the error that storing it ended with."""
        ...


class Place(NamedTuple):
    """Where an extent lies whose CRC and digest are known to be those that were asked for."""

    pack: SharedPack
    offset: int
    length: int


class PendingPack:
    """A pack of this process, from its first frame on; safe for many threads.

    Only its owner adds frames. Anybody may store it, its owner being slower or gone: then it is full.
    """

    def __init__(self, store: Store, name: str, builder: PackBuilder, *, owner: object) -> None:
        """`owner` is the stream that fills it: whatever tells it from every other one."""
        self.name = name
        self._owner = owner
        self.stored = 0
        self._store = store
        self._builder: PackBuilder | None = builder
        self._ref: PackRef | None = None
        self._failure: BaseException | None = None
        self._referred = False
        self._condemned = False
        self._lock = threading.Lock()
        """Of the fields; held for moments."""
        self._storing = threading.Lock()
        """Whoever comes second waits for the first; adding frames to other packs does not wait."""

    def add(self, stored: Buffer, raw_length: int, fingerprint: Fingerprint) -> tuple[Frame, bool] | None:
        """Where the frame lies and whether the pack is full now; None if it takes no more frames."""
        with self._lock:
            if self._builder is None or self._builder.full:
                return None
            return self._builder.add(stored, raw_length, fingerprint), self._builder.full

    def refer(self, stream: object) -> bool:
        with self._lock:
            if self._failure is not None or self._condemned:
                return False
            self._referred |= stream is not self._owner
            return True

    def condemn(self) -> None:
        """Nothing new may refer to it."""
        with self._lock:
            self._condemned = True

    def give_up(self) -> None:
        """Its owner has gone; unless another stream refers to it already, its memory is free.

        What storing it failed with stays known, and where that was raised.
        """
        with self._lock:
            _forget_locals(self._failure)
            if self._builder is not None and not self._referred:
                self._builder.give_back()
                self._builder = None
                self._failure = TryAgainLater(f"{self.name} was given up before it was stored")

    def store(self) -> PackRef:
        with self._storing:
            if self._ref is None:
                self._store_builder()
        assert self._ref is not None
        return self._ref

    def _store_builder(self) -> None:
        with self._lock:
            if self._failure is not None:
                raise self._failure
            builder, self._builder = self._builder, None
        assert builder is not None
        try:
            closed = builder.close()
            reached(FaultPoint.PACK_PROVEN)
            self._store.create(self.name, [closed.data])
            reached(FaultPoint.PACK_STORED)
        except BaseException as error:
            with self._lock:
                self._failure = error
            raise
        self.stored = closed.stored
        self._ref = PackRef(name=self.name, size=len(closed.data), sha256=closed.sha256)
        # Not after an error: what the store was doing with it then, nobody knows.
        builder.give_back()


def _forget_locals(error: BaseException | None) -> None:
    """Let go of what the calls held that ended with an error, and with those that it came from."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        traceback.clear_frames(error.__traceback__)
        seen.append(error)
        error = error.__cause__ or error.__context__


class StoredPack:
    """A pack that an index of the media names. It is looked for once, before anything new refers to it."""

    def __init__(self, ref: PackRef, size_of: Callable[[str], int]) -> None:
        self.name = ref.name
        self._ref = ref
        self._size_of = size_of
        self._there: bool | None = None

    def refer(self, stream: object) -> bool:
        if self._there is None:
            self._there = self._is_there()
        return self._there

    def store(self) -> PackRef:
        return self._ref

    def _is_there(self) -> bool:
        try:
            found = self._size_of(self.name)
        except VsaError as error:
            _log.warning("nothing new refers to %s: %s", self.name, error)
            return False
        if found != self._ref.size:
            _log.warning(
                "nothing new refers to %s: it has %d bytes, expected %d", self.name, found, self._ref.size
            )
        return found == self._ref.size
