"""New rows over older indexes that are absorbed: what keeps the number of layers of a disk small.

An index absorbs the layers right below it that have no more than twice the rows of what is above them. So
each layer that stays has more than twice the rows of the next, a disk has no more layers than its rows have
binary digits, and as a row's layer grows by half whenever the row is written again, that happens as seldom.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vsa.media.index import ROW, ZEROS, IndexFile
from vsa.media.layout import IndexKind
from vsa.media.moves import PackNumbers, Relocations, follow
from vsa.media.parquet import Rows


def layers_to_absorb(layers: Sequence[IndexFile], new_rows: int, disk_size: int) -> int:
    """How many of the layers, counted from the top, a new index of so many rows absorbs."""
    count = 0
    for file in reversed(layers):
        about = file.description
        # Its short last extent would be read as a whole one in an index of a larger disk.
        ends_short = about.disk_size != disk_size and about.disk_size % about.extent_size != 0
        # Not "more than": of changes that each are a little smaller than the last none would be absorbed.
        if len(file) > 2 * new_rows or ends_short:
            break
        new_rows += len(file)
        count += 1
    return count


class Absorbed:
    """Layers of one disk, oldest first, that a new index takes over, frames where they lie now."""

    def __init__(self, files: Sequence[IndexFile], relocations: Relocations, packs: PackNumbers) -> None:
        """`packs` numbers the packs of the new index; what the layers refer to is added."""
        self._packs = packs
        self._layers = [(file, packs.ordinals(file.description.packs)) for file in files]
        names = frozenset(item.name for file in files for item in file.description.packs)
        self._moves = [table for _, table in relocations.concerning(names)]
        self.has_base = any(file.description.kind is IndexKind.BASE for file in files)
        self.segments = frozenset(number for file in files for number in file.segments)

    def under(self, segment: int, new: Rows) -> Rows:
        """The rows of a segment: those of the layers, and over them the new ones."""
        rows = np.concatenate([*self._older(segment), new])
        # The last row of an extent counts: in reverse order that is the first one met.
        _, first = np.unique(rows["extent"][::-1], return_index=True)
        merged = rows[len(rows) - 1 - first]
        for moves in self._moves:
            pack, offset, length = (merged[name].copy() for name in ("pack", "offset", "length"))
            follow(moves, self._packs, pack, offset, length)
            merged["pack"], merged["offset"], merged["length"] = pack, offset, length
        return merged[merged["pack"] != ZEROS] if self.has_base else merged

    def _older(self, segment: int) -> list[Rows]:
        found: list[Rows] = []
        for file, ordinals in self._layers:
            if (rows := file.rows(segment)) is not None:
                stored = rows["pack"] != ZEROS
                rows["pack"][stored] = ordinals[rows["pack"][stored]]
                found.append(rows)
        return found


def nothing() -> Rows:
    """No rows."""
    return np.zeros(0, ROW)
