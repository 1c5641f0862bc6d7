"""What damage means: which bytes of which disks of which points are lost, for every point there is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from vsa.media.damaged import damaged_positions
from vsa.media.entries import Harm
from vsa.media.media import Media
from vsa.media.partial import KNOWN
from vsa.media.view import View
from vsa.ranges import ByteRange, merge
from vsa.upkeep.contents import SharedSegment, disks, segments

Piece = tuple[int, int, int]
"""First byte and end of a lost range, and the offset of the frame that held it (-1: it was no frame)."""

_NO_FRAME = -1


@dataclass
class Losses:
    """Harm by the name of the object that is to blame, why it is, and what the harmed disks are called.

    `needed`: those of the suspected packs to which any point leads.
    """

    harm: dict[str, list[Harm]] = field(default_factory=lambda: defaultdict(list))
    reasons: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)


def assess(
    media: Media, view: View, lost: Mapping[str, Collection[int]], suspected: Collection[str]
) -> Losses:
    """Walk all points and find those that need the lost frames (offsets by pack) or what no index tells."""
    losses = Losses()
    for key, versions in disks(view, view.points.keys()):
        pieces: dict[str, dict[Piece, set[int]]] = defaultdict(lambda: defaultdict(set))
        for shared in segments(media, view, versions):
            for item in shared:
                for name, piece in _pieces(item, lost):
                    pieces[name][piece].update(item.slots)
                used = {item.disk.packs[at] for at in np.unique(item.segment.table.pack).tolist() if at >= 0}
                losses.needed |= used.intersection(suspected)
                losses.reasons |= {bad.name: bad.reason for bad in item.disk.unreadable}
        if pieces:
            newest = versions[-1]
            vm = view.points[newest.slots[-1]].point.vm
            losses.names[key] = f"disk {newest.backup.disk.name} of {vm.name}"
        for name, found in pieces.items():
            losses.harm[name] += _harm(key, found)
    return losses


def _pieces(item: SharedSegment, lost: Mapping[str, Collection[int]]) -> Iterator[tuple[str, Piece]]:
    segment, disk = item.segment, item.disk
    for position in damaged_positions(segment.table, disk.packs, lost):
        start = disk.range_of(segment.table.first_extent + position).offset
        end = start + int(segment.table.size[position])
        led_by = int(segment.led_by[position])
        if led_by == KNOWN:
            yield disk.packs[segment.table.pack[position]], (start, end, int(segment.table.offset[position]))
        else:
            yield disk.unreadable[led_by].name, (start, end, _NO_FRAME)
    for number, positions in groupby(segment.hidden, key=lambda at: int(segment.hidden_by[at])):
        extents = (disk.range_of(segment.table.first_extent + at) for at in positions)
        for at in merge(extents):
            yield disk.unreadable[number].name, (at.offset, at.end, _NO_FRAME)


def _harm(disk_key: str, found: Mapping[Piece, set[int]]) -> Iterator[Harm]:
    """One for each set of points that lost the same."""
    by_points: dict[tuple[int, ...], list[Piece]] = defaultdict(list)
    for piece, of_points in sorted(found.items()):
        by_points[tuple(sorted(of_points))].append(piece)
    for slots, pieces in sorted(by_points.items()):
        frames = [piece for piece in pieces if piece[2] != _NO_FRAME]
        if frames:
            ranges = tuple((start, end) for start, end, _ in frames)
            yield Harm(
                points=slots, disk_key=disk_key, ranges=ranges, offsets=tuple(piece[2] for piece in frames)
            )
        if rest := joined(piece[:2] for piece in pieces if piece[2] == _NO_FRAME):
            yield Harm(points=slots, disk_key=disk_key, ranges=rest)


def joined(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same bytes, neighbours joined."""
    return tuple((item.offset, item.end) for item in merge(ByteRange(*item) for item in ranges))
