"""What is written of a disk is what is read of it: bases, deltas, growth, threads, order, failures."""

from __future__ import annotations

import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media.faulty_store import FaultyStore, Moment, no_fault
from tests.media.making import EXTENT, a_disk, new_media, noise, objects, read_disk, text, write_disk
from vsa import fault_points
from vsa.errors import BadRequest, MediaDamaged, MediaUnusable
from vsa.fault_points import FaultPoint
from vsa.media.coding import PackCodec
from vsa.media.disk_writer import DiskTarget, DiskWriter
from vsa.media.folder import FolderStore
from vsa.media.frames import fingerprint
from vsa.media.layout import PACK_FRAMES, SEGMENT, IndexKind
from vsa.media.media import Media
from vsa.memory import PACKS, Buffers
from vsa.ranges import KIB, MIB

SIZE = 3 * SEGMENT * EXTENT
"""Three segments, so that a disk has absent ones."""

NUMBERS = st.sampled_from([0, 1, 2, 7, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT - 1])
DATA = st.one_of(st.builds(noise, st.integers()), st.builds(text, st.integers()))


@pytest.fixture
def media(tmp_path):
    return new_media(tmp_path / "media")


def a_writer(folder, scratch, store=None, pack_target=64 * KIB, buffers=None, **given) -> DiskWriter:
    """A writer with packs small enough to see many of them."""
    media_id = Media.open(str(folder)).id
    fields = {"media_id": media_id, "run": "r1", "disk_key": "d", "disk_size": SIZE, "extent_size": EXTENT}
    target = DiskTarget(**{**fields, "kind": IndexKind.BASE, **given})
    return DiskWriter(
        store or FolderStore(folder),
        target,
        codec=PackCodec(media_id, EXTENT),
        scratch=scratch,
        random=os.urandom,
        pack_target=pack_target,
        buffers=buffers,
    )


def put(writer: DiskWriter, extent: int, data: bytes) -> None:
    writer.put(extent, memoryview(data), *fingerprint(data))


@settings(deadline=None, max_examples=40)
@given(
    base=st.dictionaries(NUMBERS, DATA, max_size=8),
    deltas=st.lists(st.dictionaries(NUMBERS, st.one_of(st.none(), DATA), max_size=5), max_size=3),
)
def test_a_base_and_its_deltas_read_as_the_disk_was_last(tmp_path_factory, base, deltas):
    folder = tmp_path_factory.mktemp("disks")
    media, disk = new_media(folder / "media"), a_disk(size=SIZE)
    indexes, expected = [], {}
    for number, contents in enumerate([base, *deltas]):
        kind = IndexKind.DELTA if number else IndexKind.BASE
        written = write_disk(media, contents, run=f"r{number}", disk=disk, scratch=folder, kind=kind)
        indexes.extend([written.index] if written.index else [])
        expected.update(contents)
    assert read_disk(media, indexes, SIZE) == {at: data for at, data in expected.items() if data}


def test_a_delta_that_changes_nothing_stores_nothing(media, tmp_path):
    written = write_disk(media, {}, run="r1", disk=a_disk(), scratch=tmp_path, kind=IndexKind.DELTA)
    assert (written.index, written.packs, written.stored) == (None, (), 0)
    assert objects(tmp_path / "media") == {"media.json"}


def test_an_empty_base_is_an_index_without_packs(media, tmp_path):
    written = write_disk(media, {3: None}, run="r1", disk=a_disk(), scratch=tmp_path)
    assert written.packs == ()
    index = media.disk_index([written.index], a_disk().size)
    assert index.segments() == []
    assert index.segment(0) is None


def test_absent_segments_cost_nothing_and_tables_are_dense(media, tmp_path):
    disk = a_disk(size=2 * SEGMENT * EXTENT + 5 * EXTENT)
    data = text("x")
    written = write_disk(media, {2 * SEGMENT + 3: data}, run="r1", disk=disk, scratch=tmp_path)
    index = media.disk_index([written.index], disk.size)
    assert tuple(index.packs) == written.packs
    assert index.segments() == [2]
    assert index.segment(0) is None
    table = index.segment(2)
    assert (table.first_extent, len(table)) == (2 * SEGMENT, 5)
    assert table.pack.tolist() == [-1, -1, -1, 0, -1]
    assert (int(table.crc[3]), table.digest[3].tobytes()) == fingerprint(data)
    assert not table.digest[2].any()
    assert (table.pack.dtype, table.offset.dtype, table.crc.dtype, table.digest.shape) == (
        np.int32,
        np.uint32,
        np.uint32,
        (5, 32),
    )


def test_the_last_extent_may_be_short(media, tmp_path):
    disk = a_disk(size=2 * EXTENT + 512)
    contents = {1: noise(1), 2: noise(2, 512)}
    written = write_disk(media, contents, run="r1", disk=disk, scratch=tmp_path)
    assert read_disk(media, [written.index], disk.size) == contents


@pytest.mark.parametrize("seed", [noise, text])
def test_a_disk_that_grew_reads_zeros_where_it_was_not(media, tmp_path, seed):
    small = a_disk(size=2 * EXTENT + 512)
    written = write_disk(media, {0: seed(0), 2: seed(2, 512)}, run="r1", disk=small, scratch=tmp_path)
    expected = {0: seed(0), 2: seed(2, 512) + bytes(EXTENT - 512)}
    assert read_disk(media, [written.index], 100 * EXTENT) == expected
    with pytest.raises(MediaDamaged, match="at most"):
        media.disk_index([written.index], small.size - 1)


def test_segments_may_end_in_any_order(tmp_path, media):
    writer = a_writer(tmp_path / "media", tmp_path)
    for segment in (2, 0, 1):
        for extent in (segment * SEGMENT + 9, segment * SEGMENT + 4):
            put(writer, extent, noise(extent))
        writer.end_segment(segment)
    written = writer.finish()
    expected = {
        segment * SEGMENT + at: noise(segment * SEGMENT + at) for segment in range(3) for at in (4, 9)
    }
    assert read_disk(media, [written.index], SIZE) == expected


def test_many_threads_write_one_disk(tmp_path, media):
    writer = a_writer(tmp_path / "media", tmp_path)
    numbers = [*range(200), *range(SEGMENT, SEGMENT + 200)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda extent: put(writer, extent, noise(extent)), numbers))
    writer.end_segment(0)
    written = writer.finish()
    assert len(written.packs) > 20
    assert written.stored == 400 * EXTENT
    assert read_disk(media, [written.index], SIZE) == {number: noise(number) for number in numbers}
    assert objects(tmp_path / "media") == {"media.json", written.index.name, *written.packs}


def test_packs_are_cut_at_their_target(tmp_path, media):
    writer = media.disk_writer(run="r1", disk_key="d", disk_size=SIZE, kind=IndexKind.BASE, scratch=tmp_path)
    piece = os.urandom(EXTENT)
    for extent in range(65 * MIB // EXTENT):
        put(writer, extent, piece)
    written = writer.finish()
    sizes = [(tmp_path / "media" / name).stat().st_size for name in written.packs]
    assert len(sizes) == 2
    assert 64 * MIB < sizes[0] < 66 * MIB


def test_packs_of_tiny_frames_are_cut_by_their_number(tmp_path, media):
    """Else the table of a highly compressible disk would outgrow memory."""
    writer = a_writer(tmp_path / "media", tmp_path, pack_target=64 * MIB)
    zeros = bytes(EXTENT)
    proof = fingerprint(zeros)
    for extent in range(PACK_FRAMES + 1):
        writer.put(extent, memoryview(zeros), *proof)
    assert len(writer.finish().packs) == 2


class TestUse:
    """Mistakes of a caller are errors at once, not damage later."""

    @pytest.fixture
    def writer(self, tmp_path, media):
        writer = a_writer(tmp_path / "media", tmp_path)
        yield writer
        writer.abandon()

    def test_an_extent_outside_the_disk(self, writer):
        with pytest.raises(ValueError, match="outside"):
            put(writer, 3 * SEGMENT, noise(0))
        with pytest.raises(ValueError, match="outside"):
            writer.clear(-1)

    @pytest.mark.parametrize("length", [0, 512, EXTENT - 1, EXTENT + 1])
    def test_an_extent_of_the_wrong_length(self, writer, length):
        with pytest.raises(ValueError, match="has 4096 bytes"):
            put(writer, 0, bytes(length))

    def test_an_extent_given_twice(self, writer):
        put(writer, 0, noise(0))
        with pytest.raises(ValueError, match="twice"):
            put(writer, 0, noise(1))

    def test_an_extent_given_too_late(self, writer):
        put(writer, 0, noise(0))
        writer.end_segment(0)
        with pytest.raises(ValueError, match="had ended"):
            put(writer, 1, noise(1))

    def test_a_disk_that_cannot_be_numbered(self, media, tmp_path):
        for size in (0, (2**32 + 1) * EXTENT):
            with pytest.raises(BadRequest):
                a_writer(tmp_path / "media", tmp_path, disk_size=size)

    def test_scratch_that_is_not_there(self, media, tmp_path):
        with pytest.raises(MediaUnusable, match="scratch"):
            a_writer(tmp_path / "media", tmp_path / "absent")


def test_a_wrong_fingerprint_is_caught_before_anything_is_stored(tmp_path, media):
    writer = a_writer(tmp_path / "media", tmp_path)
    writer.put(0, memoryview(noise(0)), *fingerprint(noise(1)))
    with pytest.raises(MediaDamaged, match="a pack in memory"):
        writer.finish()
    assert objects(tmp_path / "media") == {"media.json"}


def test_once_storing_has_failed_every_call_says_so(tmp_path, media):
    full = MediaUnusable("full")
    store = FaultyStore(FolderStore(tmp_path / "media"), lambda *_: (Moment.BEFORE, full))
    writer = a_writer(tmp_path / "media", tmp_path, store)
    with pytest.raises(MediaUnusable, match="full"):
        for extent in range(100):
            put(writer, extent, noise(extent))
    for call in (
        lambda: put(writer, 200, noise(0)),
        lambda: writer.clear(201),
        lambda: writer.end_segment(0),
        writer.finish,
    ):
        with pytest.raises(MediaUnusable, match="full"):
            call()


def test_leaving_removes_the_scratch_rows_and_no_object(tmp_path, media):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for leave in (DiskWriter.abandon, DiskWriter.finish):
        before = objects(tmp_path / "media")
        writer = a_writer(tmp_path / "media", scratch)
        for extent in range(50):
            put(writer, extent, noise(extent))
        writer.end_segment(0)
        assert list(scratch.iterdir())
        leave(writer)
        assert list(scratch.iterdir()) == []
        assert objects(tmp_path / "media") > before


def test_full_packs_wait_for_each_other_but_readers_do_not_pile_up(tmp_path, media):
    """With storing held up, only the stated number of full packs exists; then everything goes on."""
    go, held = threading.Event(), threading.Semaphore(0)

    def hold(_number: int, method: str, _name: str):
        held.release()
        assert go.wait(30)

    store = FaultyStore(FolderStore(tmp_path / "media"), hold)
    writer = a_writer(tmp_path / "media", tmp_path, store)
    with ThreadPoolExecutor(6) as threads:
        work = [threads.submit(put, writer, extent, noise(extent)) for extent in range(160)]
        for _ in range(PACKS):
            assert held.acquire(timeout=30)
        assert not held.acquire(timeout=0.2)
        given = sum(future.done() for future in work)
        assert given <= (PACKS + 1) * 16
        go.set()
        for future in work:
            future.result(timeout=30)
    written = writer.finish()
    assert len(read_disk(media, [written.index], SIZE)) == 160


class CountedBuffers(Buffers):
    """Counts those that are out, and what was ever made."""

    def __init__(self) -> None:
        super().__init__()
        self.out = 0
        self.made: set[int] = set()

    def take(self, size: int) -> memoryview:
        self.out += 1
        taken = super().take(size)
        self.made.add(id(taken.obj))
        return taken

    def give_back(self, buffer: memoryview) -> None:
        assert len(buffer), "given back twice"
        self.out -= 1
        super().give_back(buffer)


class WatchedBuffers(Buffers):
    """Sees which of them are still in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: list[weakref.ref] = []

    def take(self, size: int) -> memoryview:
        taken = super().take(size)
        self.alive.append(weakref.ref(taken.obj))
        return taken


def test_packs_use_the_same_memory_one_after_the_other(tmp_path, media):
    buffers = CountedBuffers()
    writer = a_writer(tmp_path / "media", tmp_path, buffers=buffers)
    expected = {extent: noise(extent) for extent in range(160)}
    for extent, data in expected.items():
        put(writer, extent, data)
    written = writer.finish()
    assert len(written.packs) == 10 and len(buffers.made) == 1 and buffers.out == 0
    assert read_disk(media, [written.index], SIZE) == expected


def test_an_index_is_not_made_beside_the_memory_of_packs(tmp_path, media):
    buffers, free = CountedBuffers(), []
    fault_points.install(
        lambda point: free.append(buffers.free) if point is FaultPoint.INDEX_STORED else None
    )
    try:
        writer = a_writer(tmp_path / "media", tmp_path, buffers=buffers)
        put(writer, 0, noise(0))
        writer.finish()
    finally:
        fault_points.install(None)
    assert free == [0]


def test_the_memory_of_a_pack_that_was_not_stored_is_used_by_nobody(tmp_path, media):
    """Who knows what the store was doing with it when it failed."""
    buffers = CountedBuffers()

    def fail(_number: int, method: str, _name: str):
        raise MediaUnusable("full")

    store = FaultyStore(FolderStore(tmp_path / "media"), fail)
    writer = a_writer(tmp_path / "media", tmp_path, store, buffers=buffers)
    with pytest.raises(MediaUnusable):
        for extent in range(16):
            put(writer, extent, noise(extent))
    assert (buffers.out, buffers.free) == (1, 0)
    writer.abandon()


def test_a_pack_that_was_not_stored_takes_no_memory_once_its_stream_is_over(tmp_path, media):
    """It is remembered, as is what its storing failed with: whoever refers to it is told."""

    def fail(_number: int, method: str, _name: str):
        raise MediaUnusable("full")

    buffers = WatchedBuffers()
    store = FaultyStore(FolderStore(tmp_path / "media"), fail)
    writer = a_writer(tmp_path / "media", tmp_path, store, buffers=buffers)
    with pytest.raises(MediaUnusable, match="full"):
        for extent in range(16):
            put(writer, extent, noise(extent))
    writer.abandon()
    assert len(buffers.alive) == 1 and [memory() for memory in buffers.alive] == [None]
    with pytest.raises(MediaUnusable, match="full"):
        writer.finish()


def test_the_memory_of_a_pack_that_was_given_up_is_free(tmp_path, media):
    buffers = CountedBuffers()
    writer = a_writer(tmp_path / "media", tmp_path, buffers=buffers)
    put(writer, 0, noise(0))
    writer.abandon()
    assert buffers.out == 0 and buffers.free > 0


class TestReading:
    @pytest.fixture
    def contents(self):
        return {
            extent: noise(extent) if extent % 3 else text(extent) for extent in range(0, 600) if extent % 7
        }

    @pytest.fixture
    def index(self, media, tmp_path, contents):
        writer = a_writer(tmp_path / "media", tmp_path, disk_key=a_disk().key)
        for extent, data in contents.items():
            put(writer, extent, data)
        return writer.finish().index

    def test_any_order_is_kept(self, media, index, contents):
        disk = media.disk_index([index], SIZE)
        table = disk.segment(0)
        wanted = [599, 0, 7, 3, 3, 598, 1, 2, 14, 300]
        read = list(media.extent_reader().read(disk, table, wanted))
        assert read == [(at, contents.get(at, bytes(EXTENT))) for at in wanted]

    def test_neighbours_are_read_together(self, media, index, contents, tmp_path):
        from vsa.media.extent_reader import ExtentReader

        disk = media.disk_index([index], SIZE)
        store = FaultyStore(FolderStore(tmp_path / "media"), no_fault)
        list(ExtentReader(store, media.codec).read(disk, disk.segment(0), range(600)))
        assert len(store.calls) == len(disk.packs)

    def test_zeros_are_not_read(self, media, index, tmp_path):
        from vsa.media.extent_reader import ExtentReader

        disk = media.disk_index([index], SIZE)
        store = FaultyStore(FolderStore(tmp_path / "media"), no_fault)
        read = dict(ExtentReader(store, media.codec).read(disk, disk.segment(0), [0, 7, 14]))
        assert read == dict.fromkeys([0, 7, 14], bytes(EXTENT))
        assert store.calls == []

    def test_a_lost_pack_is_named(self, media, index, tmp_path):
        disk = media.disk_index([index], SIZE)
        (tmp_path / "media" / disk.packs[1]).unlink()
        with pytest.raises(MediaDamaged, match=disk.packs[1]):
            list(media.extent_reader().read(disk, disk.segment(0), range(600)))

    def test_no_flipped_bit_of_a_pack_is_ever_returned_as_data(self, media, index, contents, tmp_path):
        disk = media.disk_index([index], SIZE)
        table, path = disk.segment(0), tmp_path / "media" / disk.packs[0]
        inside = [at for at in range(600) if table.pack[at] == 0]
        sound = path.read_bytes()
        ends = {int(table.offset[at]) + int(table.length[at]): at for at in inside}
        for offset in range(min(table.offset[inside]), max(ends), 61):
            path.write_bytes(sound[:offset] + bytes([sound[offset] ^ 1 << offset % 8]) + sound[offset + 1 :])
            hit = ends[min(end for end in ends if end > offset)]
            with pytest.raises(MediaDamaged, match=f"{disk.packs[0]}, extent {hit} at bytes"):
                list(media.extent_reader().read(disk, table, [hit]))
            others = [at for at in inside if at != hit]
            assert dict(media.extent_reader().read(disk, table, others)) == {
                at: contents[at] for at in others
            }
