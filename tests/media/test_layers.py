"""Layers of a disk's index: always the right contents, few, and written in proportion to the change."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.media.faulty_store import FaultyStore
from tests.media.making import EXTENT, Contents, a_disk, new_media, noise, read_disk, write_disk
from tests.soak import examples, more_in_ci, only_in_soak
from vsa.media import layout
from vsa.media.coding import PackCodec
from vsa.media.disk_index import DiskIndex
from vsa.media.disk_writer import DiskTarget, DiskWriter
from vsa.media.entries import RelocateEntry
from vsa.media.folder import FolderStore
from vsa.media.frames import fingerprint
from vsa.media.index import ROW, IndexDescription, PackRef, open_index, write_index
from vsa.media.layout import SEGMENT, IndexKind
from vsa.media.moves import MOVE, MovesDescription, Relocations, store_moves
from vsa.media.view import Relocation
from vsa.model import IndexRef
from vsa.ranges import GIB, KIB, MIB


class LayeredDisk:
    """A disk that is backed up again and again, and what it should hold."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.media = new_media(folder / "media")
        self.size = size
        self.short_growths = 0
        self.indexes: Sequence[IndexRef] = ()
        self.expected: dict[int, bytes] = {}
        self.runs = 0
        self.index_bytes = 0

    def back_up(self, contents: Contents) -> None:
        disk = a_disk(size=self.size)
        parent = self.media.disk_index(self.indexes, self.size) if self.indexes else None
        there = {at: data for at, data in contents.items() if at * EXTENT < self.size}
        given = {at: data and data[: self._length(at)] for at, data in there.items()}
        written = write_disk(
            self.media,
            given,
            run=f"r{self.runs}",
            disk=disk,
            scratch=self.folder,
            kind=IndexKind.DELTA if parent else IndexKind.BASE,
            parent=parent,
        )
        self.runs += 1
        self.indexes = written.indexes
        self.index_bytes += written.index.size if written.index else 0
        self.expected.update({at: data or b"" for at, data in given.items()})

    def grow(self, size: int) -> None:
        if size > self.size and self.size % EXTENT:
            self.short_growths += 1
        self.size = max(size, self.size)

    def _length(self, extent: int) -> int:
        return min(EXTENT, self.size - extent * EXTENT)

    def require_contents(self) -> None:
        padded = {at: data.ljust(self._length(at), b"\0") for at, data in self.expected.items() if data}
        assert read_disk(self.media, self.indexes, self.size) == padded

    def require_few_layers(self) -> None:
        """Layers from before a disk with a short end grew cannot be absorbed by later ones."""
        rows = sum(len(file) for file in self.media.disk_index(self.indexes, self.size).files)
        assert len(self.indexes) <= (math.log2(max(rows, 1)) + 2) * (1 + self.short_growths)


LAST = SEGMENT + 2
NUMBERS = st.one_of(st.integers(0, 40), st.sampled_from([SEGMENT - 1, SEGMENT, LAST]))
DELTA = st.dictionaries(NUMBERS, st.one_of(st.none(), st.builds(noise, st.integers(0, 9))), max_size=24)
GROWTH = st.sampled_from([0, 0, 512, EXTENT, EXTENT + 1024, SEGMENT * EXTENT])


@more_in_ci
@examples(12, 60, 300)
@given(st.sampled_from([0, 512]), st.lists(st.tuples(GROWTH, DELTA), min_size=1, max_size=8))
@example(512, [(0, {LAST: noise(0)}), (EXTENT, {0: noise(1), 1: noise(2), 2: noise(3)})])
def test_whatever_is_absorbed_the_contents_are_the_disk_s(tmp_path_factory, tail, history):
    disk = LayeredDisk(tmp_path_factory.mktemp("layers"), LAST * EXTENT + tail)
    for growth, delta in history:
        disk.grow(disk.size + growth)
        disk.back_up(delta)
        disk.require_contents()
        disk.require_few_layers()


@more_in_ci
@examples(10, 40, 100)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=12))
@example(list(range(14, 0, -1)))
def test_a_disk_has_few_layers_however_large_the_changes_were(tmp_path_factory, sizes):
    """Each change a little smaller than the one before is the worst of all histories."""
    disk = LayeredDisk(tmp_path_factory.mktemp("layers"), SEGMENT * EXTENT)
    disk.back_up(dict.fromkeys(range(200), b"x" * EXTENT))
    first = 300
    for size in sizes:
        disk.back_up(dict.fromkeys(range(first, first + size), b"y" * EXTENT))
        first += size
        disk.require_few_layers()


def test_the_indexes_of_many_incrementals_are_as_large_as_the_changes_times_a_logarithm(tmp_path):
    disk = LayeredDisk(tmp_path, SEGMENT * EXTENT)
    disk.back_up({at: noise(at) for at in range(3000)})
    per_row = disk.index_bytes / 3000
    disk.index_bytes, incrementals, changed = 0, 40, 16
    for number in range(incrementals):
        disk.back_up({(number * 389 + at * 7) % 3000: noise((number, at)) for at in range(changed)})
    rows = incrementals * changed
    overhead = 3 * KIB * incrementals
    assert disk.index_bytes <= 2 * per_row * rows * math.log(rows, 1.5) + overhead
    # Writing the base again each time would take far more.
    assert disk.index_bytes < incrementals * 3000 * per_row / 4
    disk.require_contents()


def test_a_layer_that_is_absorbed_takes_its_frames_from_where_they_have_moved(tmp_path):
    """The old packs are gone, and the new index does not even name them."""
    disk = LayeredDisk(tmp_path, SEGMENT * EXTENT)
    disk.back_up({at: noise(at) for at in range(4)})
    (old,) = disk.media.disk_index(disk.indexes, disk.size).files
    relocations = repacked(disk.media, {at: noise(at) for at in range(4)}, old, tmp_path)
    for item in old.description.packs:
        (tmp_path / "media" / item.name).unlink()

    opened = [open_index(disk.media.store, old.ref, media_id=disk.media.id, extent_size=EXTENT, overhead=0)]
    parent = DiskIndex(opened, relocations, disk_size=disk.size, extent_size=EXTENT)
    target = DiskTarget(disk.media.id, "r9", a_disk().key, disk.size, EXTENT, IndexKind.DELTA)
    writer = DiskWriter(
        disk.media.store,
        target,
        codec=disk.media.codec,
        scratch=tmp_path,
        random=os.urandom,
        parent=parent,
        relocations=relocations,
    )
    changed = {3: noise("new"), **{at: noise(at) for at in range(10, 14)}}
    for extent, data in changed.items():
        writer.put(extent, memoryview(data), *fingerprint(data))
    written = writer.finish()
    assert written.indexes == (written.index,)
    (new,) = disk.media.disk_index(written.indexes, disk.size).files
    assert new.description.kind is IndexKind.BASE
    assert not {item.name for item in new.description.packs} & {item.name for item in old.description.packs}
    expected = {at: noise(at) for at in range(3)} | changed
    assert read_disk(disk.media, written.indexes, disk.size) == expected


def repacked(media, contents: Mapping[int, bytes], old, scratch: Path) -> Relocations:
    """Store the extents again, and a table that leads from where they lay to where they lie now."""
    copy = write_disk(media, contents, run="repack", disk=a_disk(size=SEGMENT * EXTENT), scratch=scratch)
    (new,) = media.disk_index(copy.indexes, SEGMENT * EXTENT).files
    before, after = old.rows(0), new.rows(0)
    rows = np.zeros(len(before), MOVE)
    rows["from_pack"], rows["from_offset"] = before["pack"], before["offset"]
    for name in ("pack", "offset", "length"):
        rows[name] = after[name]
    sources = tuple(item.name for item in old.description.packs)
    about = MovesDescription(media=media.id, run="repack", sources=sources, packs=new.description.packs)
    table = store_moves(media.store, layout.moves("repack", os.urandom(8)), about, rows)
    entry = RelocateEntry(table=table, packs=sources, reason="repack")
    return Relocations(media.store, [Relocation(5, entry)], media_id=media.id)


class CountingStore(FaultyStore):
    """Counts the bytes that are read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(FolderStore(folder), lambda *_: None)
        self.read_bytes = 0

    def read(self, name, at=None, *, limit=None):
        data = super().read(name, at, limit=limit)
        self.read_bytes += len(data)
        return data


def a_base_over(folder: Path, segments: int, *, rows: int, every: int) -> tuple[str, IndexRef, int]:
    """A base with `rows` rows in every so many-th segment, of packs that are not there: the index alone."""
    media = new_media(folder / "media", extent_size=64 * KIB)
    size = segments * SEGMENT * 64 * KIB
    name = layout.index("r0", "d", bytes(8))
    item = PackRef(name=layout.pack("r0", bytes(16)), size=2**32 - 1, sha256="0" * 64)
    about = IndexDescription(
        media=media.id,
        run="r0",
        disk_key="d",
        disk_size=size,
        extent_size=64 * KIB,
        kind=IndexKind.BASE,
        packs=(item,),
    )

    def group(number: int):
        made = np.zeros(rows, ROW)
        made["extent"] = number * SEGMENT + np.arange(rows) * (SEGMENT // rows)
        made["offset"] = 64 + np.arange(rows) * 1000
        made["length"] = 1000
        made["digest"] = np.frombuffer(os.urandom(32 * rows), np.dtype((np.void, 32)))
        return number, made

    path = folder / "base"
    ref = write_index(path, name, about, map(group, range(0, segments, every)))
    media.store.create(name, [path.read_bytes()])
    return media.id, ref, size


def incremental(folder: Path, media_id: str, base: IndexRef, size: int, changed: int) -> tuple[int, int, int]:
    """Bytes of a new index of so many extents; bytes read to open the disk, and then to write the index."""
    store = CountingStore(folder / "media")
    files = [open_index(store, base, media_id=media_id, extent_size=64 * KIB, overhead=0)]
    moved = Relocations(store, (), media_id=media_id)
    parent = DiskIndex(files, moved, disk_size=size, extent_size=64 * KIB)
    opening = store.read_bytes
    target = DiskTarget(media_id, f"i{changed}", "d", size, 64 * KIB, IndexKind.DELTA)
    writer = DiskWriter(
        store, target, codec=PackCodec(media_id, 64 * KIB), scratch=folder, random=os.urandom, parent=parent
    )
    for number in range(changed):
        data = memoryview(number.to_bytes(8, "big") * (8 * KIB))
        writer.put((number % 2) * SEGMENT + number, data, *fingerprint(data))
    written = writer.finish()
    assert written.index is not None
    assert len(written.indexes) == 2
    return written.index.size, opening, store.read_bytes - opening


@pytest.mark.parametrize(
    "size",
    [256 * GIB, 2048 * GIB, pytest.param(32 * 1024 * GIB, marks=only_in_soak)],
)
def test_an_incremental_s_index_follows_its_changes_whatever_the_disk(tmp_path, size):
    segments = size // (SEGMENT * 64 * KIB)
    media_id, base, size = a_base_over(tmp_path, segments, rows=4096, every=8)
    few, _, reads = incremental(tmp_path, media_id, base, size, 64)
    many, _, more = incremental(tmp_path, media_id, base, size, 2048)
    assert few < 10 * KIB
    assert many < 64 * 2048
    # Nothing of the base is read but what was read to open it.
    assert (reads, more) == (few, many)


def test_reading_a_segment_reads_that_row_group_alone(tmp_path):
    media_id, base, size = a_base_over(tmp_path, 64, rows=4096, every=1)
    assert base.size > 8 * MIB
    store = CountingStore(tmp_path / "media")
    file = open_index(store, base, media_id=media_id, extent_size=64 * KIB, overhead=0)
    index = DiskIndex([file], Relocations(store, (), media_id=media_id), disk_size=size, extent_size=64 * KIB)
    opened = store.read_bytes
    assert opened == base.footer
    for count, segment in enumerate([5, 60], 1):
        assert index.segment(segment) is not None
        part = next(part for part in file.description.segments if part.number == segment)
        assert store.read_bytes - opened < count * (part.length + KIB)
