"""What must be read of a disk, against a model that keeps every sector."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vsa.media.layout import SEGMENT
from vsa.ranges import GIB, KIB, MIB, ByteRange
from vsa.transfer.reads import CLEARED, LONGEST_READ, READ, ReadPlan, reads_of

SECTOR = 512
NOTHING, WRITTEN, ZEROED = 0, 1, 2

Change = tuple[int, int, int]
"""First sector, sector behind the last, WRITTEN or ZEROED."""


def planned(sectors: int, extent: int, changes: list[Change]) -> ReadPlan:
    """The plan of a disk whose changes come in ascending order; extent and disk are counted in sectors."""
    plan = ReadPlan(sectors * SECTOR, extent * SECTOR)
    for start, end, kind in changes:
        at = ByteRange(start * SECTOR, end * SECTOR)
        plan.read(at) if kind == WRITTEN else plan.clear(at)
    plan.finish()
    return plan


def by_sector(sectors: int, extent: int, changes: list[Change]) -> np.ndarray:
    """The same marks, one after the other: from what became of each sector of each extent."""
    disk = np.zeros(-(-sectors // extent) * extent, np.uint8)
    for start, end, kind in changes:
        disk[start:end] = kind
    # Sectors that the disk does not have are no reason to read it.
    disk[sectors:] = ZEROED
    extents = disk.reshape(-1, extent)
    touched = (extents != NOTHING).any(axis=1)
    if sectors % extent:
        touched[-1] = (disk[sectors - sectors % extent : sectors] != NOTHING).any()
    zeros = (extents == ZEROED).all(axis=1)
    return np.where(zeros & touched, CLEARED, np.where(touched, READ, 0))


def marks_of(plan: ReadPlan) -> np.ndarray:
    """All marks of a plan in one array."""
    rows = [
        np.zeros(plan.segment_length(segment), np.uint8) if (marks := plan.marks(segment)) is None else marks
        for segment in range(plan.segments)
    ]
    return np.concatenate(rows)


@st.composite
def disks(draw: st.DrawFn) -> tuple[int, int, list[Change]]:
    """A disk of up to a few extents, sizes of every kind, and any ascending changes."""
    extent = draw(st.integers(1, 8))
    sectors = draw(st.integers(1, 12 * extent))
    return sectors, extent, draw(changes_of(st.integers(0, sectors)))


@st.composite
def long_disks(draw: st.DrawFn) -> tuple[int, int, list[Change]]:
    """A disk around the ends of its first two segments, with changes near them or right across."""
    extent = draw(st.sampled_from([1, 2, 3]))
    ends = [SEGMENT * extent, 2 * SEGMENT * extent]
    sectors = draw(st.sampled_from(ends)) + draw(st.integers(-extent - 1, 2 * extent))
    places = st.builds(lambda end, by: end + by, st.sampled_from([0, *ends]), st.integers(-7, 7))
    return sectors, extent, draw(changes_of(places.map(lambda place: min(max(place, 0), sectors))))


@st.composite
def changes_of(draw: st.DrawFn, places: st.SearchStrategy[int]) -> list[Change]:
    bounds = sorted(draw(st.sets(places, max_size=14)))
    kinds = st.sampled_from([NOTHING, WRITTEN, ZEROED, ZEROED])
    return [(start, end, kind) for start, end in pairwise(bounds) if (kind := draw(kinds))]


@settings(deadline=None, max_examples=400)
@given(disks())
@example((4, 4, [(0, 2, ZEROED), (2, 4, ZEROED)]))
@example((5, 4, [(4, 5, ZEROED)]))
@example((3, 8, [(0, 3, ZEROED)]))
@example((3, 8, [(1, 3, ZEROED)]))
def test_marks_are_what_became_of_each_sector(disk: tuple[int, int, list[Change]]) -> None:
    assert marks_of(planned(*disk)).tolist() == by_sector(*disk).tolist()


@settings(deadline=None, max_examples=60)
@given(long_disks())
def test_marks_are_right_across_segments(disk: tuple[int, int, list[Change]]) -> None:
    plan, expected = planned(*disk), by_sector(*disk)
    assert np.array_equal(marks_of(plan), expected)
    for mark in (READ, CLEARED):
        assert plan.marked(mark) == np.count_nonzero(expected == mark)


@pytest.mark.parametrize("clear_first", [False, True])
def test_reading_wins_whichever_is_told_first(clear_first: bool) -> None:
    plan = ReadPlan(8 * SECTOR, 2 * SECTOR)
    if not clear_first:
        plan.read(ByteRange(3 * SECTOR, 5 * SECTOR))
    plan.clear(plan.whole)
    plan.finish()
    if clear_first:
        plan.read(ByteRange(3 * SECTOR, 5 * SECTOR))
    assert marks_of(plan).tolist() == [CLEARED, READ, READ, CLEARED]


def test_a_plan_may_be_finished_twice() -> None:
    plan = planned(16, 4, [(0, 6, ZEROED)])
    before = marks_of(plan).tolist()
    plan.finish()
    assert marks_of(plan).tolist() == before == [CLEARED, READ, 0, 0]


@pytest.mark.parametrize(
    ("size", "extents", "segments", "last_segment", "last_extent"),
    [
        (512, 1, 1, 1, 512),
        (64 * KIB - 512, 1, 1, 1, 64 * KIB - 512),
        (64 * KIB, 1, 1, 1, 64 * KIB),
        (64 * KIB + 512, 2, 1, 2, 512),
        (4 * GIB - 512, SEGMENT, 1, SEGMENT, 64 * KIB - 512),
        (4 * GIB, SEGMENT, 1, SEGMENT, 64 * KIB),
        (4 * GIB + 512, SEGMENT + 1, 2, 1, 512),
        (9 * GIB, 9 * SEGMENT // 4, 3, SEGMENT // 4, 64 * KIB),
    ],
)
def test_a_disk_in_extents_and_segments(
    size: int, extents: int, segments: int, last_segment: int, last_extent: int
) -> None:
    plan = ReadPlan(size, 64 * KIB)
    assert (plan.extents, plan.segments) == (extents, segments)
    assert plan.segment_length(segments - 1) == last_segment
    assert plan.extent_range(extents - 1) == ByteRange(size - last_extent, size)
    plan.read(plan.whole)
    assert plan.marked(READ) == extents
    assert sum(plan.segment_length(segment) for segment in range(segments)) == extents
    last = reads_of(plan, segments - 1, [last_segment - 1])
    assert list(last) == [ByteRange(size - last_extent, size)]
    assert plan.bytes_of(extents) == size


def test_segments_without_a_mark_do_not_exist() -> None:
    plan = ReadPlan(32 * 1024 * GIB, 64 * KIB)
    plan.clear(ByteRange(5 * GIB, 5 * GIB + 512))
    plan.finish()
    plan.read(ByteRange(16 * 1024 * GIB, 16 * 1024 * GIB + 512))
    plan.read(ByteRange(32 * 1024 * GIB - 512, 32 * 1024 * GIB))
    assert plan.segments == 8192
    assert [n for n in range(plan.segments) if plan.marks(n) is not None] == [1, 4096, 8191]


def test_a_change_in_every_segment_of_a_large_disk_takes_little_memory() -> None:
    """8,192 segments; with the marks of each at hand it were 512 MiB."""
    with traced() as peak:
        plan = ReadPlan(32 * 1024 * GIB, 64 * KIB)
        for segment in range(plan.segments):
            start = segment * 4 * GIB + (segment * 7919 % 65536) * 64 * KIB
            plan.read(ByteRange(start, start + 4 * KIB))
            plan.clear(ByteRange(start + 128 * KIB, start + 1024 * KIB))
        plan.finish()
        assert plan.marked(READ) == plan.segments
        assert plan.marked(CLEARED) > 13 * plan.segments
        marked = plan.marks(4096)
        assert marked is not None
        assert np.flatnonzero(marked == READ).tolist() == [4096 * 7919 % 65536]
    assert peak() < 8 * MIB


def test_changes_without_any_order_take_a_quarter_of_a_byte_for_an_extent() -> None:
    rng, segments = np.random.default_rng(7), 128
    wanted = [rng.integers(0, 3, SEGMENT, np.uint8) for _ in range(segments)]
    with traced() as peak:
        plan = ReadPlan(segments * SEGMENT * 512, 512)
        for segment, marks in enumerate(wanted):
            plan._marks.change(segment, SEGMENT)[:] = marks
    assert peak() < segments * SEGMENT // 4 + 4 * MIB
    for segment in rng.permutation(segments).tolist():
        assert np.array_equal(plan.marks(segment), wanted[segment])


def test_marks_that_were_packed_can_be_changed() -> None:
    """Again and again, each time after all others were used."""
    plan = ReadPlan(64 * SEGMENT * 512, 512)
    for extent in (5, 3, 9):
        for segment in range(plan.segments):
            first = segment * SEGMENT + extent
            plan.read(ByteRange(first * 512, (first + 1) * 512))
    for segment in range(plan.segments):
        marks = plan.marks(segment)
        assert marks is not None
        assert np.flatnonzero(marks).tolist() == [3, 5, 9]


def test_many_threads_see_the_same_marks() -> None:
    plan = ReadPlan(64 * SEGMENT * 512, 512)
    for segment in range(plan.segments):
        plan.read(ByteRange((segment * SEGMENT + segment) * 512, (segment * SEGMENT + segment + 1) * 512))

    def look(seed: int) -> bool:
        order = np.random.default_rng(seed).permutation(plan.segments).tolist()
        return all(
            np.flatnonzero(plan.marks(segment)).tolist() == [segment] for segment in order for _ in range(2)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(look, range(16)))


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Gives the most memory, in bytes, that Python and numpy took inside."""
    found: list[int] = []
    tracemalloc.start()
    try:
        yield lambda: found[0]
        found.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_reads_cover_the_extents_exactly_and_none_is_longer_than_the_longest(data: st.DataObject) -> None:
    extent_size = data.draw(st.sampled_from([4 * KIB, 64 * KIB, MIB, 3 * MIB, 4 * MIB]))
    extents = data.draw(st.integers(1, 300))
    size = extents * extent_size - data.draw(st.sampled_from([0, 512, extent_size - 512]))
    segment = data.draw(st.sampled_from([0, 2]))
    plan = ReadPlan(size + segment * SEGMENT * extent_size, extent_size)
    runs = data.draw(st.lists(st.tuples(st.integers(0, extents - 1), st.integers(1, 150)), max_size=6))
    positions = sorted({at for first, count in runs for at in range(first, min(first + count, extents))})

    reads = list(reads_of(plan, segment, positions))
    assert all(0 < read.length <= LONGEST_READ for read in reads)
    assert all(read.offset % extent_size == 0 for read in reads)
    assert all(one.end <= other.offset for one, other in pairwise(reads))
    covered = [at for read in reads for at in range(read.offset, read.end, extent_size)]
    first = segment * SEGMENT
    assert covered == [plan.extent_range(first + position).offset for position in positions]
    assert sum(read.length for read in reads) == sum(
        plan.extent_range(first + position).length for position in positions
    )
    # No two neighbours could have been one read.
    for one, other in pairwise(reads):
        assert one.end < other.offset or one.length + extent_size > LONGEST_READ


def test_no_extents_no_reads() -> None:
    assert list(reads_of(ReadPlan(MIB, 64 * KIB), 0, [])) == []
