"""Reading damaged extents again: what the media has lost, the disk may still hold.

A stream also reads every extent whose frame, as the parent has it, is damaged. One that still has the
parent's fingerprint is stored anew, and all points are led there; one that differs heals nobody, but the new
point has its own bytes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace

from vsa.errors import MediaConflict, MediaDamaged, ObjectsDoomed, TryAgainLater
from vsa.media.damaged import damaged_positions
from vsa.media.disk_index import DiskIndex, SegmentTable
from vsa.media.heal import MAX_HEALED, portion
from vsa.media.layout import SEGMENT
from vsa.media.media import Media
from vsa.media.view import View
from vsa.model import IndexRef, Method, Reason
from vsa.transfer.methods import Decision

_log = logging.getLogger(__name__)

_ATTEMPTS = 50
"""How often others may be first: a job may have as many streams that heal at the same time."""


class Healing:
    """The damaged frames of one disk's parent, and those of them that were stored anew."""

    def __init__(
        self,
        parent: DiskIndex | None,
        damaged: Mapping[str, frozenset[int]],
        *,
        at_most: int = MAX_HEALED,
    ) -> None:
        """`damaged` is what the log says: offsets of bad frames by pack, or WHOLE. `at_most`: frames that one
        entry names, see `portion`."""
        self._at_most = at_most
        self._parent = parent
        self._damaged = damaged
        self._lock = threading.Lock()
        self._stored: set[int] = set()

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
        with self._lock:
            self._stored.add(table.first_extent + position)

    def commit(self, index: IndexRef | None, *, run: str, media: Media) -> None:
        """Lead all points to the new frames, before the run has a point: that may fail, this stands.

        Planned anew for as long as other streams or jobs move frames meanwhile; in several entries if one
        would not hold it all.
        """
        if index is None or not self._stored:
            return
        refused, left = 0, set(self._stored)
        while refused < _ATTEMPTS:
            view = media.view()
            places = portion(self._still_damaged(media, view, left), at_most=self._at_most)
            if not places:
                return
            try:
                slot = media.heal(index, places, run=run, planned_on=view)
                _log.warning("%d damaged extents are healed (log slot %d)", len(places), slot)
                left -= places.keys()
            except ObjectsDoomed:
                raise
            except MediaConflict as error:
                refused += 1
                _log.info("healing is planned again: %s", error)
        raise TryAgainLater("frames were moved by others again and again while this run tried to heal some")

    def _still_damaged(
        self, media: Media, view: View, extents: Set[int]
    ) -> Iterator[tuple[int, tuple[str, int]]]:
        """Where these extents, which were stored anew, lie now, unless that is sound already."""
        if self._parent is None:
            return
        refs = [file.ref for file in self._parent.files]
        index = media.disk_index(refs, self._parent.disk_size, view)
        for number in sorted({extent // SEGMENT for extent in extents}):
            table = index.segment(number)
            for at in damaged_positions(table, index.packs, view.damaged) if table else ():
                if table and table.first_extent + at in extents:
                    place = index.packs[table.pack[at]], int(table.offset[at])
                    yield table.first_extent + at, place


def unless_parent_is_damaged(decision: Decision, media: Media, disk_size: int) -> Decision:
    """The decision, or a full because the indexes that it would build on can no longer be read."""
    if decision.parent is None:
        return decision
    view, indexes = media.view(), decision.parent.backup.indexes
    sound = view.sound_indexes()
    # What stands in for an index may be damaged in its turn, and shows it only when that part is read.
    read = (sound.get(ref.name, ref).name for ref in indexes)
    fault = next((f"{name} is damaged" for name in read if view.is_lost(name)), "")
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
