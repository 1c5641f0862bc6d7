"""What is read, compared with what the media holds: the result is the disk, and the figures are true."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from crc32c import crc32c
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.media.making import a_disk, new_media, noise, read_disk, write_disk
from vsa.media.layout import IndexKind
from vsa.media.media import Media
from vsa.model import IndexRef
from vsa.progress import SILENT
from vsa.ranges import ByteRange
from vsa.stop import Stop
from vsa.transfer.compare import AuditMismatch, Comparison, is_zero
from vsa.transfer.pump import Pump
from vsa.transfer.reads import LONGEST_READ, READ, ReadPlan

EXTENT = 4096
SECTOR = 512


@pytest.mark.parametrize("length", [8, 512, EXTENT, EXTENT + 512])
def test_a_single_byte_anywhere_is_not_zero(length: int) -> None:
    data = bytearray(length)
    assert is_zero(memoryview(data))
    for position in range(length):
        data[position] = 1 << position % 8
        assert not is_zero(memoryview(data)), f"byte {position} of {length} was overlooked"
        data[position] = 0


def test_a_view_that_does_not_begin_where_its_buffer_does() -> None:
    buffer = bytearray(b"\1" * 3 + bytes(512) + b"\1" * 3)
    assert is_zero(memoryview(buffer)[3:515])
    assert not is_zero(memoryview(buffer)[3 + 8 : 515 + 1])


@dataclass(frozen=True)
class Contents:
    """The reader of a disk that is in memory."""

    data: bytes

    def read_into(self, at: ByteRange, buffer: memoryview) -> None:
        buffer[: at.length] = self.data[at.offset : at.end]

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class Compared:
    """A finished comparison and the indexes that the disk is in now."""

    comparison: Comparison
    indexes: tuple[IndexRef, ...]


class Store:
    """A media and one disk on it, backup after backup."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.media: Media = new_media(folder / "media", extent_size=EXTENT)
        self._runs = count()

    def hold(self, contents: bytes) -> tuple[IndexRef, ...]:
        """Store a whole disk, not through a comparison."""
        extents = {n: data for n, data in enumerate(split(contents)) if any(data)}
        written = write_disk(
            self.media,
            extents,
            run=f"r{next(self._runs)}",
            disk=a_disk(size=len(contents)),
            scratch=self.folder,
        )
        assert written.index is not None
        return (written.index,)

    def compare(
        self,
        now: bytes,
        plan: ReadPlan,
        parent: tuple[IndexRef, ...] = (),
        *,
        audited: Iterable[int] = (),
        unplanned_is_zero: bool = False,
        reader: type[Contents] = Contents,
        longest_read: int = LONGEST_READ,
    ) -> Compared:
        writer = self.media.disk_writer(
            run=f"r{next(self._runs)}",
            disk_key=a_disk().key,
            disk_size=len(now),
            kind=IndexKind.DELTA if parent else IndexKind.BASE,
            scratch=self.folder,
        )
        comparison = Comparison(
            plan,
            unplanned_is_zero=unplanned_is_zero,
            parent=self.media.disk_index(parent, len(now)) if parent else None,
            writer=writer,
            progress=SILENT,
            longest_read=longest_read,
        )
        try:
            with Pump(lambda: reader(now), longest=LONGEST_READ, stop=Stop(), readers=2) as pump:
                comparison.segment(0, sorted(audited), pump)
            index = comparison.finish().index
        except BaseException:
            comparison.abandon()
            raise
        return Compared(comparison, (*parent, *([index] if index else [])))

    def restored(self, indexes: tuple[IndexRef, ...], size: int) -> bytes:
        disk = bytearray(size)
        for extent, data in read_disk(self.media, indexes, size).items():
            disk[extent * EXTENT : extent * EXTENT + len(data)] = data
        return bytes(disk)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def split(contents: bytes) -> list[bytes]:
    return [contents[at : at + EXTENT] for at in range(0, len(contents), EXTENT)]


def a_plan(size: int, *, read: Iterable[int] = (), cleared: Iterable[int] = ()) -> ReadPlan:
    plan = ReadPlan(size, EXTENT)
    for extent in sorted(cleared):
        plan.clear(plan.extent_range(extent))
    plan.finish()
    for extent in read:
        plan.read(plan.extent_range(extent))
    return plan


def lengths(contents: bytes, extents: Iterable[int]) -> int:
    return sum(len(split(contents)[extent]) for extent in extents)


def read_by(plan: ReadPlan) -> set[int]:
    marks = plan.marks(0)
    return set() if marks is None else set((marks == READ).nonzero()[0].tolist())


@st.composite
def histories(draw: st.DrawFn) -> tuple[bytes, bytes, ReadPlan]:
    """A disk before, after some changes and perhaps larger, and the plan that tells of the changes."""
    sectors = draw(st.integers(1, 60))
    pieces = st.sampled_from([bytes(SECTOR), noise(1, SECTOR), noise(2, SECTOR)])
    before = b"".join(draw(st.lists(pieces, min_size=sectors, max_size=sectors)))
    grown = draw(st.sampled_from([0, 0, 1, 9]))
    after = bytearray(before + bytes(grown * SECTOR))
    plan = ReadPlan(len(after), EXTENT)
    bounds = sorted(draw(st.sets(st.integers(0, sectors + grown), max_size=8)))
    for start, end in zip(bounds[::2], bounds[1::2], strict=False):
        at = ByteRange(start * SECTOR, end * SECTOR)
        if draw(st.booleans()):
            after[at.offset : at.end] = bytes(at.length)
            plan.clear(at)
        else:
            after[at.offset : at.end] = draw(pieces) * (end - start)
            plan.read(at)
    plan.finish()
    return before, bytes(after), plan


def changed(before: bytes, after: bytes) -> set[int]:
    longer = before + bytes(len(after) - len(before))
    return {n for n, (old, new) in enumerate(zip(split(longer), split(after), strict=True)) if old != new}


EXAMPLES = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@EXAMPLES
@given(histories(), st.data())
def test_what_a_change_list_tells_is_enough(
    store: Store, history: tuple[bytes, bytes, ReadPlan], data: st.DataObject
) -> None:
    before, after, plan = history
    unread = sorted(set(range(plan.extents)) - read_by(plan))
    audited = data.draw(st.sets(st.sampled_from(unread))) if unread else set()
    done = store.compare(after, plan, store.hold(before), audited=audited)
    assert store.restored(done.indexes, len(after)) == after
    assert done.comparison.new == lengths(after, changed(before, after))
    assert done.comparison.audited == lengths(after, audited)
    assert done.comparison.read == lengths(after, read_by(plan) | audited)
    assert (len(done.indexes) == 1) == (before == after[: len(before)] and not any(after[len(before) :]))


@EXAMPLES
@given(histories(), st.data())
def test_by_crc_the_list_of_what_is_allocated_is_enough(
    store: Store, history: tuple[bytes, bytes, ReadPlan], data: st.DataObject
) -> None:
    before, after, _ = history
    extents = range(len(split(after)))
    held = {extent for extent in extents if any(split(after)[extent])}
    allocated = held | data.draw(st.sets(st.sampled_from(extents)))
    empty = sorted(set(extents) - allocated)
    audited = data.draw(st.sets(st.sampled_from(empty))) if empty else set()
    plan = a_plan(len(after), read=allocated)
    done = store.compare(after, plan, store.hold(before), audited=audited, unplanned_is_zero=True)
    assert store.restored(done.indexes, len(after)) == after
    assert done.comparison.new == lengths(after, changed(before, after))
    assert done.comparison.read == lengths(after, allocated | audited)

    full = store.compare(after, a_plan(len(after), read=allocated), audited=audited, unplanned_is_zero=True)
    assert store.restored(full.indexes, len(after)) == after
    assert full.comparison.new == lengths(after, held)


OLD, NEW, ZEROS = noise("old", EXTENT), noise("new", EXTENT), bytes(EXTENT)


@pytest.mark.parametrize(
    ("before", "now", "cleared"),
    [
        (OLD, NEW, False),
        (OLD, ZEROS, False),
        (ZEROS, NEW, False),
        (OLD, OLD[:-1] + b"?", False),
        (OLD, OLD, True),
        (OLD, NEW, True),
        (ZEROS, NEW, True),
    ],
)
def test_an_audited_extent_that_is_not_as_told_is_a_mismatch(
    store: Store, before: bytes, now: bytes, cleared: bool
) -> None:
    disk = [OLD, ZEROS, OLD]
    parent = store.hold(b"".join([disk[0], before, disk[2]]))
    plan = a_plan(3 * EXTENT, cleared=[1] if cleared else [])
    with pytest.raises(AuditMismatch, match="extent 1 was reported unchanged and is not"):
        store.compare(b"".join([disk[0], now, disk[2]]), plan, parent, audited=[0, 1, 2])


@pytest.mark.parametrize(("before", "cleared"), [(OLD, False), (ZEROS, False), (OLD, True), (ZEROS, True)])
def test_an_audited_extent_that_is_as_told_is_none(store: Store, before: bytes, cleared: bool) -> None:
    now = ZEROS if cleared else before
    plan = a_plan(EXTENT, cleared=[0] if cleared else [])
    done = store.compare(now, plan, store.hold(before), audited=[0])
    assert store.restored(done.indexes, EXTENT) == now


def test_data_where_nothing_is_allocated_is_a_mismatch(store: Store) -> None:
    plan = a_plan(2 * EXTENT, read=[0])
    for parent in ((), store.hold(OLD + NEW)):
        with pytest.raises(AuditMismatch, match="extent 1"):
            store.compare(OLD + NEW, plan, parent, audited=[1], unplanned_is_zero=True)


@pytest.mark.parametrize(
    ("tail", "same"), [(bytes(EXTENT - SECTOR), True), (noise(3, EXTENT - SECTOR), False)]
)
def test_an_extent_that_was_stored_short_is_itself_and_zeros_since_the_disk_grew(
    store: Store, tail: bytes, same: bool
) -> None:
    parent = store.hold(OLD + NEW[:SECTOR])
    now = OLD + NEW[:SECTOR] + tail
    done = store.compare(now, a_plan(len(now), read=[1]), parent)
    assert done.comparison.new == (0 if same else EXTENT)
    assert store.restored(done.indexes, len(now)) == now
    if same:
        store.compare(now, a_plan(len(now)), parent, audited=[1])
    else:
        with pytest.raises(AuditMismatch, match="extent 1"):
            store.compare(now, a_plan(len(now)), parent, audited=[1])


def test_a_change_that_the_checksum_does_not_show_is_stored(store: Store) -> None:
    """CRC32C is linear: flipping the bits of its polynomial, anywhere, leaves it as it was."""
    coefficients = f"{0x1_1EDC6F41:033b}"
    flips = sum(1 << at for at, bit in enumerate(coefficients) if bit == "1").to_bytes(5, "little")
    twin = bytes(old ^ flip for old, flip in zip(OLD, flips.ljust(EXTENT, b"\0"), strict=True))
    assert twin != OLD and crc32c(twin) == crc32c(OLD)

    done = store.compare(twin, a_plan(EXTENT, read=[0]), store.hold(OLD))
    assert store.restored(done.indexes, EXTENT) == twin
    with pytest.raises(AuditMismatch):
        store.compare(twin, a_plan(EXTENT), store.hold(OLD), audited=[0])


@pytest.mark.parametrize("is_new", [True, False])
def test_of_a_new_disk_nothing_is_read_beside_its_first_extents(store: Store, is_new: bool) -> None:
    """They may show that it is a clone; what is compared before that is stored once more."""
    others = threading.Event()
    found: list[bool] = []

    class Slow(Contents):
        def read_into(self, at: ByteRange, buffer: memoryview) -> None:
            if at.offset == 0:
                found.append(others.wait(0.3 if is_new else 10))
            else:
                others.set()
            super().read_into(at, buffer)

    disk = b"".join(noise(n, EXTENT) for n in range(6))
    parent = () if is_new else store.hold(bytes(EXTENT) + disk[EXTENT:])
    plan = a_plan(len(disk), read=range(6))
    done = store.compare(disk, plan, parent, reader=Slow, longest_read=EXTENT)
    assert store.restored(done.indexes, len(disk)) == disk
    assert found == [not is_new]
