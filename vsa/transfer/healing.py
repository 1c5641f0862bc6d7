"""Reading damaged extents again: what the media has lost, the disk may still hold.

A stream also reads every extent whose frame, as the parent has it, is damaged. One that still has the
parent's fingerprint is stored anew, and all points are led there; one that differs heals nobody, but the new
point has its own bytes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace

from vsa.errors import MediaDamaged
from vsa.media.damaged import damaged_positions
from vsa.media.disk_index import DiskIndex, SegmentTable
from vsa.media.media import Media
from vsa.model import IndexRef, Method, Reason
from vsa.transfer.methods import Decision

_log = logging.getLogger(__name__)


class Healing:
    """The damaged frames of one disk's parent, and those of them that were stored anew."""

    def __init__(self, parent: DiskIndex | None, damaged: Mapping[str, frozenset[int]]) -> None:
        """`damaged` is what the log says: offsets of bad frames by pack, or WHOLE."""
        self._parent = parent
        self._damaged = damaged
        self._lock = threading.Lock()
        self._stored: dict[int, tuple[str, int]] = {}

    def positions(self, table: SegmentTable | None) -> frozenset[int]:
        """The extents of a segment of the parent whose frames are damaged."""
        if table is None or self._parent is None:
            return frozenset()
        return frozenset(damaged_positions(table, self._parent.packs, self._damaged))

    def stored_again(self, table: SegmentTable, position: int, length: int) -> None:
        """The extent was stored anew with the parent's fingerprint.

        A frame that is shorter than the extent is now, on a disk that has grown since, has no equal.
        """
        if self._parent is None or int(table.size[position]) != length:
            return
        place = (self._parent.packs[table.pack[position]], int(table.offset[position]))
        with self._lock:
            self._stored[table.first_extent + position] = place

    def commit(self, index: IndexRef | None, *, run: str, media: Media) -> None:
        """Lead all points to the new frames, before the run has a point: that may fail, this stands."""
        if index is None or not self._stored:
            return
        slots = media.heal(index, self._stored, run=run)
        _log.warning("%d damaged extents are healed (log slots %s)", len(self._stored), slots)


def unless_parent_is_damaged(decision: Decision, media: Media, disk_size: int) -> Decision:
    """The decision, or a full because the indexes that it would build on can no longer be read."""
    if decision.parent is None:
        return decision
    view, indexes = media.view(), decision.parent.backup.indexes
    fault = next((f"{ref.name} is damaged" for ref in indexes if ref.name in view.damaged), "")
    if not fault:
        try:
            media.disk_index(indexes, disk_size, view)
            return decision
        except MediaDamaged as error:
            fault = str(error)
    _log.error("point %d cannot be built on: %s", decision.parent.slot, fault)
    return replace(
        decision,
        method=Method.FULL,
        reason=Reason.FULL_PARENT_DAMAGED,
        detail=fault,
        parent=None,
        base=None,
    )
