"""Healing: extents in damaged frames were stored anew, and whatever led to the old frames is led there.

The new frame holds the same bytes, proven by the same fingerprint. So one moves table heals every point that
needs the extent, of whatever disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np

from vsa.media import layout
from vsa.media.entries import Damaged, RelocateEntry
from vsa.media.index import ZEROS, IndexFile
from vsa.media.layout import SEGMENT
from vsa.media.moves import MOVE, MovesDescription, store_moves
from vsa.media.parquet import Rows
from vsa.media.store import Store

MAX_HEALED = 500_000
"""Frames that one entry names as healed, eleven bytes each: a document has at most 16 MiB. More frames take
more entries."""

_PACK = 32
"""Frames that take as much of an entry as a pack does, which it names twice."""

Place = tuple[str, int]
"""A pack's name and the offset of a frame in it."""


@dataclass(frozen=True)
class Healer:
    """Writes moves for one run."""

    store: Store
    media_id: str
    run: str
    random: Callable[[int], bytes]

    def entry(self, index: IndexFile, damaged: Mapping[int, Place]) -> RelocateEntry:
        """What to commit: the damaged places, given by extent, lead to where `index` has those extents.

        No more than a `portion` of them. The table is stored and read back.
        """
        sources = sorted({pack for pack, _ in damaged.values()})
        rows = _moves(index, damaged, sources)
        # Only packs that something leads to: the table is in the way of whoever wants to delete one.
        used, rows["pack"] = np.unique(rows["pack"], return_inverse=True)
        packs = tuple(index.description.packs[number] for number in used.tolist())
        about = MovesDescription(media=self.media_id, run=self.run, sources=tuple(sources), packs=packs)
        table = store_moves(self.store, layout.moves(self.run, self.random(8)), about, rows)
        return RelocateEntry(
            table=table,
            packs=tuple(sources),
            healed=tuple(_healed(damaged.values())),
            reason=f"{len(damaged)} extents were read again from their disk and found unchanged",
        )


def portion(places: Iterable[tuple[int, Place]], *, at_most: int = MAX_HEALED) -> dict[int, Place]:
    """The first of the damaged places, by extent, as many as one entry can hold; at least one."""
    found: dict[int, Place] = {}
    packs: set[str] = set()
    for extent, place in places:
        packs.add(place[0])
        if found and len(found) + _PACK * len(packs) >= at_most:
            break
        found[extent] = place
    return found


def _healed(places: Iterable[Place]) -> Iterator[Damaged]:
    """The places by pack, both ascending."""
    for source, found in groupby(sorted(set(places)), key=itemgetter(0)):
        yield Damaged(name=source, offsets=tuple(offset for _, offset in found))


def _moves(index: IndexFile, damaged: Mapping[int, Place], sources: Sequence[str]) -> Rows:
    numbers = {name: number for number, name in enumerate(sources)}
    found = {}
    for row in _rows_of(index, sorted(damaged)):
        pack, offset = damaged[int(row["extent"])]
        found[numbers[pack], offset] = (int(row["pack"]), int(row["offset"]), int(row["length"]))
    rows: Rows = np.array([(*old, *new) for old, new in found.items()], MOVE)
    return rows


def _rows_of(index: IndexFile, extents: Sequence[int]) -> Iterator[Rows]:
    """The stored rows of these extents."""
    for segment in sorted({extent // SEGMENT for extent in extents}):
        rows = index.rows(segment)
        if rows is not None:
            wanted = np.isin(rows["extent"], np.array(extents, np.uint32)) & (rows["pack"] != ZEROS)
            yield from rows[wanted]
