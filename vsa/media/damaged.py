"""Which extents of a disk lie in damaged frames."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from vsa.media.disk_index import SegmentTable
from vsa.media.index import ZEROS
from vsa.media.view import WHOLE


def damaged_positions(
    table: SegmentTable, packs: Sequence[str], damaged: Mapping[str, Collection[int]]
) -> list[int]:
    """Positions in the table, ascending. `packs` are what it counts; `damaged` has the offsets of bad frames
    by pack, or WHOLE."""
    found: list[int] = []
    for ordinal in np.unique(table.pack).tolist() if damaged else []:
        offsets = damaged.get(packs[ordinal]) if ordinal != ZEROS else None
        if offsets is None:
            continue
        inside = table.pack == ordinal
        if offsets != WHOLE:
            inside &= np.isin(table.offset, np.fromiter(offsets, np.uint32))
        found += np.flatnonzero(inside).tolist()
    return sorted(found)
