"""What the media holds already, extent by extent, through a cache of stated size.

A sampled digest says which segment of which index holds an extent; that segment is loaded, proven, and from
then on answers for all of its extents. What lies beyond the bounds is stored again: nothing else happens.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import numpy.typing as npt

from vsa.errors import VsaError
from vsa.media.digests import digest_keys, is_whole
from vsa.media.extent_sample import ExtentSample, Spot, salt
from vsa.media.frames import Fingerprint
from vsa.media.index import ZEROS, IndexFile, Offer
from vsa.media.moves import PackNumbers, Relocations, follow
from vsa.media.parquet import Rows
from vsa.media.shared_packs import Place, StoredPack
from vsa.media.view import WHOLE, View
from vsa.model import IndexRef

_log = logging.getLogger(__name__)

LOADED_ROWS = 2 * 1024 * 1024
"""Rows of loaded segments in memory, 68 bytes each: those of 128 GiB in 64 KiB extents, in 136 MiB. While
another segment is taken in, up to 80 MiB more."""

# What loading may cost, in extents found: a whole segment must be good for 1,024 of them, or 64 MiB. What is
# looked for in vain pays a little too, so that a long run of new data does not end the search for good.
_CREDIT = 16_384.0
_ROWS_PER_CREDIT = 64
_LEAST_COST = 32.0
_PER_FOUND = 1.0
_PER_MISSED = 1 / 64

OpenIndex = Callable[[IndexRef, View], IndexFile]


@dataclass
class _Table:
    """The whole, sound extents of one segment, where they lie now; `used` is when it last had an answer."""

    rows: Rows
    packs: list[StoredPack]
    offer: Offer
    client: str
    used: int = 0


@dataclass(frozen=True)
class _Loaded:
    """All loaded tables, and where each key is: replaced as a whole, so that reading needs no lock."""

    tables: dict[int, _Table] = field(default_factory=dict)
    spots: dict[tuple[str, int], int] = field(default_factory=dict)
    keys: memoryview = field(default_factory=lambda: np.zeros(0, np.uint64).data)
    table: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    row: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))

    def with_table(self, number: int, spot: Spot, table: _Table, keys: npt.NDArray[np.uint64]) -> _Loaded:
        merged = np.concatenate([np.asarray(self.keys), keys])
        # Two ascending runs: a stable sort merges them in one pass.
        order = np.argsort(merged, kind="stable")
        numbers = np.concatenate([self.table, np.full(len(keys), number, np.uint32)])
        rows = np.concatenate([self.row, np.arange(len(keys), dtype=np.uint32)])
        return _Loaded(
            {**self.tables, number: table},
            {**self.spots, (spot.index.name, spot.segment): number},
            merged[order].data,
            numbers[order],
            rows[order],
        )

    def without(self, numbers: set[int]) -> _Loaded:
        stays = ~np.isin(self.table, list(numbers))
        return _Loaded(
            {number: table for number, table in self.tables.items() if number not in numbers},
            {spot: number for spot, number in self.spots.items() if number not in numbers},
            np.asarray(self.keys)[stays].data,
            self.table[stays],
            self.row[stays],
        )


class StoredExtents:
    """Extents of committed points; safe for many threads. When the media fails, nothing is found."""

    def __init__(
        self,
        sample: ExtentSample,
        *,
        opened: OpenIndex,
        relocations: Callable[[View], Relocations],
        size_of: Callable[[str], int],
        loaded_rows: int = LOADED_ROWS,
    ) -> None:
        self._sample = sample
        self._opened = opened
        self._relocations = relocations
        self._size_of = size_of
        self._loaded_rows = loaded_rows
        self._view: View | None = None
        self._loaded = _Loaded()
        self._useless: set[tuple[str, int]] = set()
        self._credit = _CREDIT
        self._numbers = count()
        self._clock = count()
        self._lock = threading.Lock()

    def refresh(self, view: View) -> None:
        """Know what was committed since, and offer nothing that was doomed or found damaged since."""
        with self._lock:
            if self._view is not None and _judged(self._view) != _judged(view):
                self._loaded, self._useless = _Loaded(), set()
            self._view = view
            self._sample.refresh(view)

    def find(self, proof: Fingerprint, offer: Offer, salted: int, client: str) -> Place | None:
        """Where an extent lies that is offered to this client under the same switch; both proofs must agree.

        `salted` is the `salt` of switch and client.
        """
        key = int.from_bytes(proof.digest[:8], "big") ^ salted
        found = self._in_tables(key, proof, offer, client)
        if found is None and (spot := self._sample.find(key)) is not None and self._load(spot):
            found = self._in_tables(key, proof, offer, client)
        # Threads may lose each other's additions: this is an account of effort, not of data.
        self._credit = min(_CREDIT, self._credit + (_PER_FOUND if found else _PER_MISSED))
        return found

    @property
    def loaded_rows(self) -> int:
        """Rows of all loaded segments."""
        return len(self._loaded.keys)

    def _in_tables(self, key: int, proof: Fingerprint, offer: Offer, client: str) -> Place | None:
        loaded = self._loaded
        keys = loaded.keys
        at = bisect_left(keys, key)
        while at < len(keys) and keys[at] == key:
            table = loaded.tables[int(loaded.table[at])]
            place = _place(table, int(loaded.row[at]), proof, offer, client)
            if place is not None:
                table.used = next(self._clock)
                return place
            at += 1
        return None

    def _load(self, spot: Spot) -> bool:
        """Whether the segment was loaded now, at a price that what was found before has paid."""
        name = (spot.index.name, spot.segment)
        if name in self._loaded.spots:
            return False
        with self._lock:
            if name in self._loaded.spots:
                # Another thread has loaded it while this one waited.
                return True
            if name in self._useless or self._credit < _LEAST_COST or self._view is None:
                return False
            table = self._table(spot, self._view)
            if table is None:
                self._useless.add(name)
                return False
            self._credit -= max(_LEAST_COST, len(table.rows) / _ROWS_PER_CREDIT)
            self._add(spot, table)
            return True

    def _add(self, spot: Spot, table: _Table) -> None:
        loaded = self._loaded
        keys = digest_keys(table.rows) ^ np.uint64(salt(table.offer, table.client))
        order = np.argsort(keys, kind="stable")
        table.rows = table.rows[order]
        table.used = next(self._clock)
        dropped = self._to_drop(loaded, self._loaded_rows - len(keys))
        if dropped:
            loaded = loaded.without(dropped)
        self._loaded = loaded.with_table(next(self._numbers), spot, table, keys[order])

    def _to_drop(self, loaded: _Loaded, room: int) -> set[int]:
        """The tables that have been of no use for longest, until what is left fits into so many rows."""
        left, dropped = len(loaded.keys), set[int]()
        for number, table in sorted(loaded.tables.items(), key=lambda item: item[1].used):
            if left <= room:
                break
            left -= len(table.rows)
            dropped.add(number)
        return dropped

    def _table(self, spot: Spot, view: View) -> _Table | None:
        try:
            return self._read(spot, view)
        except VsaError as error:
            _log.warning("extents of %s will be stored again: %s", spot.index.name, error)
            return None

    def _read(self, spot: Spot, view: View) -> _Table | None:
        """The segment's extents that may be referred to; None if the index or its segment is not there."""
        if spot.index.name in view.doomed or view.damaged.get(spot.index.name) == WHOLE:
            return None
        file = self._opened(spot.index, view)
        rows = file.rows(spot.segment)
        about = file.description
        if rows is None or about.offer is Offer.OFF:
            return None
        rows = rows[(rows["pack"] != ZEROS) & is_whole(about, rows)]
        numbers = PackNumbers()
        rows["pack"] = numbers.ordinals(about.packs)[rows["pack"]]
        names = frozenset(item.name for item in about.packs)
        pack, offset, length = (rows[name].copy() for name in ("pack", "offset", "length"))
        for _, moves in self._relocations(view).concerning(names):
            follow(moves, numbers, pack, offset, length)
        rows["pack"], rows["offset"], rows["length"] = pack, offset, length
        packs = [StoredPack(ref, self._size_of) for ref in numbers.refs]
        return _Table(rows[_sound(rows, numbers.names, view)], packs, about.offer, about.client)


def _place(table: _Table, row: int, proof: Fingerprint, offer: Offer, client: str) -> Place | None:
    if table.offer is not offer or (offer is Offer.CLIENT and table.client != client):
        return None
    found = table.rows[row]
    if found["digest"].tobytes() != proof.digest or int(found["crc"]) != proof.crc:
        return None
    pack = table.packs[int(found["pack"])]
    return Place(pack, int(found["offset"]), int(found["length"])) if pack.refer(client) else None


def _sound(rows: Rows, names: list[str], view: View) -> npt.NDArray[np.bool_]:
    """Which rows lead to frames that are neither doomed nor damaged."""
    sound = np.ones(len(rows), np.bool_)
    for number, name in enumerate(names):
        bad = view.damaged.get(name)
        if name in view.doomed or bad == WHOLE:
            sound &= rows["pack"] != number
        elif bad:
            sound &= (rows["pack"] != number) | ~np.isin(rows["offset"], list(bad))
    return sound


def _judged(view: View) -> tuple[int, int, int]:
    """How much a view says of where frames lie and how they are: nothing of it is ever taken back."""
    return len(view.relocations), len(view.doomed), len(view.damages)
