"""What this process has stored lately, extent by extent: exact, bounded, and shared by all of its streams."""

from __future__ import annotations

import struct
import threading

from vsa.media.pack import Frame
from vsa.media.shared_packs import PendingPack, Place
from vsa.media.view import View

RECENT_EXTENTS = 384 * 1024
"""Extents of one generation: in extents of 64 KiB, the last 24 to 48 GiB of new data are remembered. Each
takes 170 bytes: a key, a value, and their share of a dictionary."""

# pack | offset | length | crc32c
_PLACE = struct.Struct("<IIII")


class _Generation:
    """Places by key, and the packs that they count."""

    def __init__(self) -> None:
        self.places: dict[bytes, bytes] = {}
        self.packs: list[PendingPack] = []
        self._numbers: dict[str, int] = {}

    def find(self, key: bytes, crc: int, stream: object) -> Place | None:
        if (packed := self.places.get(key)) is None:
            return None
        number, offset, length, known = _PLACE.unpack(packed)
        pack = self.packs[number]
        return Place(pack, offset, length) if known == crc and pack.refer(stream) else None

    def remember(self, key: bytes, pack: PendingPack, frame: Frame) -> None:
        number = self._numbers.get(pack.name)
        if number is None:
            number = self._numbers[pack.name] = len(self.packs)
            self.packs.append(pack)
        self.places[key] = _PLACE.pack(number, frame.offset, frame.length, frame.fingerprint.crc)


class RecentExtents:
    """Places by key, in two generations: when the newer one is full, the older one is dropped.

    Of several threads that ask for one key at the same time, one is told to store the extent, and the others
    wait until it has a place. A thread that was told so waits for no other key until it has said `placed` or
    `withdraw`, so nobody waits in a circle.
    """

    def __init__(self, limit: int = RECENT_EXTENTS) -> None:
        self._limit = limit
        self._newer, self._older = _Generation(), _Generation()
        self._claims: set[bytes] = set()
        self._waiting = 0
        self._changed = threading.Condition()

    def find(self, key: bytes, crc: int, stream: object) -> Place | None:
        """Where the extent lies; None if the caller is to store it and then to say so. `stream` asks."""
        with self._changed:
            while key in self._claims:
                self._wait()
            found = self._newer.find(key, crc, stream) or self._older.find(key, crc, stream)
            if found is None:
                self._claims.add(key)
            return found

    def placed(self, key: bytes, pack: PendingPack, frame: Frame) -> None:
        with self._changed:
            if len(self._newer.places) >= self._limit:
                self._newer, self._older = _Generation(), self._newer
            self._newer.remember(key, pack, frame)
            self._release(key)

    def withdraw(self, key: bytes) -> None:
        """The caller does not store it: whoever waits for it is told to."""
        with self._changed:
            self._release(key)

    def refresh(self, view: View) -> None:
        """Offer nothing that the log calls doomed or damaged, nor a pack that frames were moved out of: it
        may go at any time, and so may the table by which its rows are led."""
        moved = {name for item in view.relocations for name in item.entry.packs}
        with self._changed:
            packs = [*self._newer.packs, *self._older.packs]
        for pack in packs:
            if pack.name in view.doomed or pack.name in view.damaged or pack.name in moved:
                pack.condemn()

    def __len__(self) -> int:
        return len(self._newer.places) + len(self._older.places)

    def _wait(self) -> None:
        self._waiting += 1
        try:
            self._changed.wait()
        finally:
            self._waiting -= 1

    def _release(self, key: bytes) -> None:
        self._claims.discard(key)
        if self._waiting:
            self._changed.notify_all()
