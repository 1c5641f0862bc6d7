"""Same data once: in one process, in one after the other, and never at the price of a recovery point."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media.faulty_store import FaultyStore, Moment
from tests.media.making import (
    EXTENT,
    Contents,
    a_disk,
    a_point,
    an_intent,
    flip_bit,
    new_media,
    noise,
    objects,
    read_disk,
    read_point,
    write_disk,
)
from tests.media.moving import repack
from vsa.errors import MediaUnusable, TryAgainLater
from vsa.media import stored_extents
from vsa.media.coding import PackCodec
from vsa.media.digests import open_digests, store_digests
from vsa.media.disk_writer import DiskTarget, DiskWriter, samples_of
from vsa.media.entries import Damaged, DamageEntry, DoomEntry
from vsa.media.extent_sample import ExtentSample
from vsa.media.folder import FolderStore
from vsa.media.frames import Fingerprint, fingerprint
from vsa.media.index import Offer, open_index
from vsa.media.layout import SEGMENT, IndexKind
from vsa.media.media import Media
from vsa.media.pack import read_frames
from vsa.media.recent_extents import RecentExtents
from vsa.media.sharing import Sharing
from vsa.media.stored_extents import StoredExtents
from vsa.ranges import KIB

IMAGE = {extent: noise(extent) for extent in range(1000)}
"""What clones are made from: 4 MiB, of which 13 extents are sampled."""
SIZE = 2 * SEGMENT * EXTENT


@pytest.fixture
def media(tmp_path: Path) -> Media:
    return new_media(tmp_path / "media")


class Estate:
    """Backups of disks to one media, each by a process of its own unless they are given one to share."""

    def __init__(self, media: Media, scratch: Path) -> None:
        self.media = media
        self.scratch = scratch
        self.slots: dict[int, dict[int, bytes]] = {}

    def back_up(
        self,
        name: str,
        contents: Contents,
        *,
        sharing: Sharing | None = None,
        offer: Offer = Offer.MEDIA,
        client: str | None = None,
        size: int = SIZE,
    ) -> tuple[int, int]:
        """Commit a first point of a disk: bytes that were stored, and bytes that were shared."""
        run, disk, media = f"run-{name}", a_disk(name, size=size), self.media
        media.begin_run(an_intent(run))
        sharing = sharing or media.sharing(offer)
        written = write_disk(
            media,
            contents,
            run=run,
            disk=disk,
            scratch=self.scratch,
            sharing=sharing,
            client=client or f"client-{name}",
        )
        entry = a_point(
            disk, written.indexes, packs=written.packs, digests=samples_of(written, ()), vm=client or name
        )
        slot = media.append(entry, run=run)
        self.slots[slot] = {at: data for at, data in contents.items() if data is not None}
        return written.stored, written.shared

    def require_restores(self) -> None:
        for slot, contents in self.slots.items():
            assert read_point(self.media, slot) == contents

    def last(self) -> int:
        return max(self.slots)

    def packs_of(self, slot: int) -> set[str]:
        """The packs that a point's rows lead to."""
        backup = self.media.view().points[slot].point.disks[0]
        index = self.media.disk_index(backup.indexes, backup.disk.size)
        return {name for name in index.needs() if "/packs/" in name}


@pytest.fixture
def estate(media: Media, tmp_path: Path) -> Estate:
    return Estate(media, tmp_path)


def a_writer(folder: Path, run: str, sharing: Sharing, store=None, pack_target=64 * KIB) -> DiskWriter:
    """A writer with packs small enough to see many of them."""
    target = DiskTarget(Media.open(str(folder / "media")).id, run, "d", SIZE, EXTENT, IndexKind.BASE)
    return DiskWriter(
        store or FolderStore(folder / "media"),
        target,
        codec=PackCodec(target.media_id, target.extent_size),
        scratch=folder,
        random=os.urandom,
        sharing=sharing.of(run),
        pack_target=pack_target,
    )


def put(writer: DiskWriter, extents: Sequence[int]) -> None:
    for extent in extents:
        writer.put(extent, memoryview(noise(extent)), *fingerprint(noise(extent)))


def contents_of(extents: Sequence[int]) -> dict[int, bytes]:
    return {extent: noise(extent) for extent in extents}


POOL = st.integers(0, 30)


@settings(deadline=None, max_examples=15)
@given(
    disks=st.lists(
        st.tuples(st.dictionaries(st.integers(0, 40), POOL, min_size=1), st.booleans(), st.booleans()),
        min_size=2,
        max_size=5,
    )
)
def test_whatever_disks_have_in_common_each_restores_bit_for_bit(tmp_path_factory, disks):
    """Every digest is sampled here, so that even tiny disks meet each other across processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vsa.media.digests.SAMPLED_BITS", 0)
        _back_up_in_turn(tmp_path_factory.mktemp("dedup"), disks)


def _back_up_in_turn(folder: Path, disks: Sequence[tuple[dict[int, int], bool, bool]]) -> None:
    estate = Estate(new_media(folder / "media"), folder)
    together = estate.media.sharing(Offer.MEDIA)
    known: set[bytes] = set()
    for number, (drawn, same_process, short) in enumerate(disks):
        contents = {extent: noise(seed) for extent, seed in drawn.items()}
        size = 41 * EXTENT - (512 if short else 0)
        if short and 40 in contents:
            contents[40] = contents[40][:-512]
        new = {data for data in contents.values() if len(data) == EXTENT} - known
        stored, shared = estate.back_up(
            f"disk-{number}", contents, sharing=together if same_process else None, size=size
        )
        shorts = [data for data in contents.values() if len(data) < EXTENT]
        assert stored == len(new) * EXTENT + sum(map(len, shorts))
        assert shared == sum(map(len, contents.values())) - stored
        known |= new
    estate.require_restores()


class TestOneProcess:
    def test_a_clone_stores_nothing(self, estate):
        sharing = estate.media.sharing(Offer.MEDIA)
        assert estate.back_up("a", IMAGE, sharing=sharing) == (1000 * EXTENT, 0)
        assert estate.back_up("b", IMAGE, sharing=sharing) == (0, 1000 * EXTENT)
        estate.require_restores()

    def test_a_disk_that_repeats_itself_is_stored_once(self, estate):
        assert estate.back_up("a", dict.fromkeys(range(50), noise(1))) == (EXTENT, 49 * EXTENT)
        estate.require_restores()

    def test_threads_that_store_the_same_at_the_same_time_store_it_once(self, tmp_path, media):
        sharing = media.sharing(Offer.MEDIA)
        writers = [a_writer(tmp_path, f"r{number}", sharing) for number in range(3)]
        extents = list(range(300))
        start = threading.Barrier(6)

        def write(writer: DiskWriter, half: int) -> None:
            start.wait()
            put(writer, extents[half::2])

        threads = [
            threading.Thread(target=write, args=(writer, half), daemon=True)
            for writer in writers
            for half in (0, 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        finished = [writer.finish() for writer in writers]
        frames = [
            frame
            for name in objects(tmp_path / "media")
            if name.endswith(".pack")
            for frame in read_frames((tmp_path / "media" / name).read_bytes(), name, media.codec)
        ]
        assert len(frames) == len(extents)
        assert sum(written.stored for written in finished) == len(extents) * EXTENT
        for written in finished:
            assert read_disk(media, written.indexes, SIZE) == contents_of(extents)

    def test_a_stream_stores_the_pack_that_it_needs_of_a_slower_one(self, tmp_path, media):
        sharing = media.sharing(Offer.MEDIA)
        slow, quick = a_writer(tmp_path, "slow", sharing), a_writer(tmp_path, "quick", sharing)
        put(slow, range(5))
        put(quick, range(5))
        written = quick.finish()
        assert (written.packs, written.stored, written.shared) == ((), 0, 5 * EXTENT)
        assert read_disk(media, written.indexes, SIZE) == contents_of(range(5))
        put(slow, range(5, 9))
        later = slow.finish()
        assert len(later.packs) == 2
        assert read_disk(media, later.indexes, SIZE) == contents_of(range(9))

    def test_a_stream_that_gave_up_leaves_what_others_refer_to(self, tmp_path, media):
        sharing = media.sharing(Offer.MEDIA)
        gone, other = a_writer(tmp_path, "gone", sharing), a_writer(tmp_path, "other", sharing)
        put(gone, range(5))
        put(other, range(5))
        gone.abandon()
        written = other.finish()
        assert written.stored == 0
        assert read_disk(media, written.indexes, SIZE) == contents_of(range(5))

    def test_a_stream_that_gave_up_keeps_no_memory_that_nobody_needs(self, tmp_path, media):
        sharing = media.sharing(Offer.MEDIA)
        gone, other = a_writer(tmp_path, "gone", sharing), a_writer(tmp_path, "other", sharing)
        put(gone, range(5))
        # That it repeats itself is nobody else's need.
        gone.put(9, memoryview(noise(0)), *fingerprint(noise(0)))
        gone.abandon()
        put(other, range(5))
        written = other.finish()
        assert written.stored == 5 * EXTENT
        assert read_disk(media, written.indexes, SIZE) == contents_of(range(5))

    def test_when_another_streams_pack_cannot_be_stored_the_next_attempt_stores_it_itself(
        self, tmp_path, media
    ):
        sharing = media.sharing(Offer.MEDIA)

        def full(_number: int, method: str, name: str):
            failing = method == "create" and name.startswith("runs/failing/packs/")
            return (Moment.BEFORE, MediaUnusable("full")) if failing else None

        store = FaultyStore(FolderStore(tmp_path / "media"), full)
        failing, other = a_writer(tmp_path, "failing", sharing, store), a_writer(tmp_path, "r1", sharing)
        put(failing, range(5))
        put(other, range(5))
        with pytest.raises(TryAgainLater, match="runs/failing/packs/"):
            other.finish()
        other.abandon()
        with pytest.raises(MediaUnusable, match="full"):
            failing.finish()
        assert not any("/index/" in name for name in objects(tmp_path / "media"))
        again = a_writer(tmp_path, "r2", sharing)
        put(again, range(5))
        written = again.finish()
        assert written.stored == 5 * EXTENT
        assert read_disk(media, written.indexes, SIZE) == contents_of(range(5))

    def test_a_stream_that_fails_holds_up_nobody_who_has_the_same_extents(self, tmp_path, media):
        sharing = media.sharing(Offer.MEDIA)
        store = FaultyStore(
            FolderStore(tmp_path / "media"), lambda *_: (Moment.BEFORE, MediaUnusable("full"))
        )
        failing = a_writer(tmp_path, "failing", sharing, store)
        with pytest.raises(MediaUnusable):
            put(failing, range(100))
        with pytest.raises(MediaUnusable):
            put(failing, [500])
        other = a_writer(tmp_path, "other", sharing)
        thread = threading.Thread(target=put, args=(other, [500]), daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        assert other.finish().stored == EXTENT

    def test_an_extent_that_one_thread_could_not_store_is_stored_by_the_one_that_waited(
        self, tmp_path, media
    ):
        recent = RecentExtents()
        key = b"k" * 32
        assert recent.find(key, 1, None) is None
        told = []
        waiter = threading.Thread(target=lambda: told.append(recent.find(key, 1, None)), daemon=True)
        waiter.start()
        waiter.join(0.1)
        assert waiter.is_alive()
        recent.withdraw(key)
        waiter.join(30)
        assert told == [None]

    def test_the_memory_for_recent_extents_is_bounded(self, tmp_path, media):
        recent = RecentExtents(limit=50)
        sharing = Sharing(Offer.MEDIA, recent=recent, stored=_nothing_stored(media), view=media.view)
        writer = a_writer(tmp_path, "r1", sharing)
        put(writer, range(500))
        assert len(recent) <= 100
        writer.finish()
        again = a_writer(tmp_path, "r2", sharing)
        put(again, range(460, 500))
        put(again, range(20))
        written = again.finish()
        assert (written.shared, written.stored) == (40 * EXTENT, 20 * EXTENT)


def _nothing_stored(media: Media) -> StoredExtents:
    def opened(ref):
        raise AssertionError(ref)

    return StoredExtents(ExtentSample(opened), opened=opened, relocations=opened, size_of=opened)


class TestLaterProcesses:
    def test_a_clone_stores_nothing(self, estate):
        estate.back_up("a", IMAGE)
        assert estate.back_up("b", IMAGE) == (0, 1000 * EXTENT)
        estate.require_restores()

    def test_a_clone_that_begins_differently_stores_what_precedes_its_first_sampled_extent(self, estate):
        estate.back_up("a", IMAGE)
        sampled = [at for at in range(16, 1000) if not fingerprint(IMAGE[at]).digest[0] & 0x3F]
        own = {at: noise(("own", at)) for at in range(16)}
        assert estate.back_up("b", {**IMAGE, **own})[0] == sampled[0] * EXTENT
        estate.require_restores()

    def test_extents_are_found_at_other_places_of_other_disks(self, estate):
        estate.back_up("a", IMAGE)
        moved = {SEGMENT + 7 * extent: data for extent, data in IMAGE.items()}
        _, shared = estate.back_up("b", moved)
        assert shared > 700 * EXTENT
        estate.require_restores()

    def test_the_newest_layers_answer_when_the_first_point_is_given_up(self, estate, tmp_path):
        """What a later index has taken over is sampled with it."""
        media = estate.media
        estate.back_up("a", IMAGE)
        base = media.view().points[estate.last()].point.disks[0]
        media.begin_run(an_intent("second"))
        disk = a_disk("a", size=SIZE)
        newer = {extent: noise(("new", extent)) for extent in range(1000)}
        written = write_disk(
            media,
            newer,
            run="second",
            disk=disk,
            scratch=tmp_path,
            kind=IndexKind.DELTA,
            parent=media.disk_index(base.indexes, SIZE),
            sharing=media.sharing(Offer.MEDIA),
        )
        assert len(written.indexes) == 1
        samples = samples_of(written, base.digests)
        media.append(a_point(disk, written.indexes, packs=written.packs, digests=samples), run="second")
        _, shared = estate.back_up("b", newer)
        assert shared > 700 * EXTENT
        estate.require_restores()

    def test_extents_of_a_short_end_are_never_referred_to(self, estate):
        size = 5 * EXTENT + 512
        contents = {**contents_of(range(5)), 5: noise(5)[:512]}
        sharing = estate.media.sharing(Offer.MEDIA)
        estate.back_up("a", contents, size=size, sharing=sharing)
        assert estate.back_up("b", contents, size=size, sharing=sharing) == (512, 5 * EXTENT)
        estate.require_restores()

    def test_the_switch_off_stores_everything_and_offers_nothing(self, estate):
        assert estate.back_up("a", IMAGE, offer=Offer.OFF) == (1000 * EXTENT, 0)
        assert estate.back_up("b", IMAGE) == (1000 * EXTENT, 0)
        assert not any("/digests/run-a" in name for name in objects(Path(estate.media.location)))


@pytest.mark.parametrize("of_same_process", [True, False])
def test_crc_and_all_of_the_digest_must_agree(estate, of_same_process):
    sharing = estate.media.sharing(Offer.MEDIA)
    estate.back_up("a", IMAGE, sharing=sharing)
    if not of_same_process:
        sharing = estate.media.sharing(Offer.MEDIA)
    stream = sharing.of("client")
    crc, digest = fingerprint(IMAGE[0])
    for other in (Fingerprint(crc ^ 1, digest), Fingerprint(crc, digest[:31] + bytes([digest[31] ^ 1]))):
        assert stream.find(other) is None
        stream.withdraw(other)
    assert stream.find(Fingerprint(crc, digest)) is not None


class TestOneClient:
    def test_clients_do_not_share(self, estate):
        sharing = estate.media.sharing(Offer.CLIENT)
        assert estate.back_up("a", IMAGE, sharing=sharing, client="one") == (1000 * EXTENT, 0)
        assert estate.back_up("b", IMAGE, sharing=sharing, client="two") == (1000 * EXTENT, 0)
        assert estate.back_up("c", IMAGE, sharing=sharing, client="two") == (0, 1000 * EXTENT)
        _, shared = estate.back_up("d", IMAGE, offer=Offer.CLIENT, client="three")
        assert shared == 0
        _, shared = estate.back_up("e", IMAGE, offer=Offer.CLIENT, client="one")
        assert shared > 700 * EXTENT
        estate.require_restores()

    def test_one_clients_extents_are_not_offered_to_another_even_if_their_keys_meet(
        self, estate, monkeypatch
    ):
        """Keys are mixed with the client; 64 bits may collide, so that a table also knows whose it is."""
        for module in ("extent_sample", "stored_extents", "sharing"):
            monkeypatch.setattr(f"vsa.media.{module}.salt", lambda offer, client: 0)
        estate.back_up("a", IMAGE, offer=Offer.CLIENT)
        assert estate.back_up("b", IMAGE, offer=Offer.CLIENT) == (1000 * EXTENT, 0)
        assert estate.back_up("c", IMAGE, offer=Offer.MEDIA) == (1000 * EXTENT, 0)

    def test_what_is_stored_for_one_client_is_never_offered_to_all(self, estate):
        estate.back_up("a", IMAGE, offer=Offer.CLIENT)
        assert estate.back_up("b", IMAGE, offer=Offer.MEDIA, client="client-a") == (1000 * EXTENT, 0)

    def test_what_all_may_have_is_not_referred_to_by_a_client_that_keeps_to_itself(self, estate):
        estate.back_up("a", IMAGE, offer=Offer.MEDIA)
        assert estate.back_up("b", IMAGE, offer=Offer.CLIENT) == (1000 * EXTENT, 0)

    @pytest.mark.parametrize(
        ("before", "after", "same", "expected"),
        [
            (Offer.MEDIA, Offer.MEDIA, True, Offer.MEDIA),
            (Offer.CLIENT, Offer.MEDIA, True, Offer.CLIENT),
            (Offer.CLIENT, Offer.MEDIA, False, Offer.OFF),
            (Offer.MEDIA, Offer.CLIENT, False, Offer.CLIENT),
            (Offer.OFF, Offer.MEDIA, True, Offer.OFF),
        ],
    )
    def test_an_index_that_takes_others_over_is_offered_to_nobody_new(
        self, estate, tmp_path, before, after, same, expected
    ):
        media, disk = estate.media, a_disk("a", size=SIZE)
        estate.back_up("a", contents_of(range(5)), offer=before, client="one")
        older = media.disk_index(media.view().points[estate.last()].point.disks[0].indexes, SIZE)
        written = write_disk(
            media,
            {at: noise(("new", at)) for at in range(9)},
            run="r2",
            disk=disk,
            scratch=tmp_path,
            kind=IndexKind.DELTA,
            parent=older,
            sharing=media.sharing(after),
            client="one" if same else "two",
        )
        assert len(written.indexes) == 1
        index = open_index(media.store, written.index, media_id=media.id, extent_size=EXTENT, overhead=0)
        assert index.description.offer is expected
        assert (written.digests is None) == (expected is Offer.OFF)


class TestDoomedDamagedAndMoved:
    @pytest.fixture
    def first(self, estate) -> set[str]:
        estate.back_up("a", IMAGE)
        return estate.packs_of(estate.last())

    @pytest.mark.parametrize("of_same_process", [True, False])
    def test_nothing_refers_to_a_damaged_pack(self, estate, of_same_process):
        sharing = estate.media.sharing(Offer.MEDIA)
        estate.back_up("a", IMAGE, sharing=sharing)
        (pack,) = estate.packs_of(estate.last())
        estate.media.append(DamageEntry(objects=(Damaged(name=pack),), reason="test"))
        stored = estate.back_up("b", IMAGE, sharing=sharing if of_same_process else None)
        assert stored == (1000 * EXTENT, 0)
        assert pack not in estate.packs_of(estate.last())
        estate.require_restores()

    def test_nothing_refers_to_a_damaged_frame_and_everything_to_the_sound_ones(self, estate, first):
        (pack,) = first
        frames = read_frames(Path(estate.media.location, pack).read_bytes(), pack, estate.media.codec)
        bad = [frame.offset for frame in frames[500:510]]
        estate.media.append(DamageEntry(objects=(Damaged(name=pack, offsets=tuple(bad)),), reason="test"))
        estate.back_up("b", IMAGE)
        table = _table(estate)
        for position in range(500, 510):
            assert table[position][0] != pack
        assert table[510][0] == table[999][0] == pack
        estate.require_restores()

    @pytest.mark.parametrize("of_same_process", [True, False])
    def test_nothing_refers_to_a_doomed_pack(self, estate, of_same_process):
        sharing = estate.media.sharing(Offer.MEDIA)
        estate.back_up("a", IMAGE, sharing=sharing)
        (pack,) = estate.packs_of(estate.last())
        estate.media.append(DoomEntry(objects=(pack,), reason="test"))
        estate.back_up("b", IMAGE, sharing=sharing if of_same_process else None)
        assert pack not in estate.packs_of(estate.last())

    @pytest.mark.parametrize("entry", [DamageEntry, DoomEntry])
    def test_segments_that_were_loaded_before_are_judged_again(self, estate, first, entry):
        (pack,) = first
        sharing = estate.media.sharing(Offer.MEDIA)
        assert estate.back_up("b", IMAGE, sharing=sharing) == (0, 1000 * EXTENT)
        bad = (Damaged(name=pack),) if entry is DamageEntry else (pack,)
        estate.media.append(entry(objects=bad, reason="test"))
        assert estate.back_up("c", IMAGE, sharing=sharing) == (1000 * EXTENT, 0)

    @pytest.mark.parametrize(("entry", "lost"), [(DamageEntry, 1), (DoomEntry, 5)])
    def test_what_goes_bad_while_a_disk_is_read_is_read_again(self, estate, tmp_path, entry, lost):
        media = estate.media
        sharing = media.sharing(Offer.MEDIA)
        estate.back_up("a", IMAGE, sharing=sharing)
        (pack,) = estate.packs_of(estate.last())
        writer = a_writer(tmp_path, "r2", sharing)
        put(writer, range(5))
        bad = (Damaged(name=pack, offsets=(64,)),) if entry is DamageEntry else (pack,)
        media.append(entry(objects=bad, reason="test"))
        with pytest.raises(TryAgainLater, match=pack):
            writer.finish()
        again = a_writer(tmp_path, "r3", sharing)
        put(again, range(5))
        assert again.finish().stored == lost * EXTENT

    def test_a_pack_that_is_gone_without_a_word_is_not_referred_to(self, estate, first, caplog):
        (pack,) = first
        Path(estate.media.location, pack).unlink()
        assert estate.back_up("b", IMAGE) == (1000 * EXTENT, 0)
        assert [record.message for record in caplog.records if pack in record.message]

    def test_what_one_process_stored_is_not_referred_to_once_it_has_moved(self, estate):
        """Its table would have to stay for this row alone, and may be doomed already."""
        sharing = estate.media.sharing(Offer.MEDIA)
        first, _ = estate.back_up("a", contents_of(range(40)), sharing=sharing)
        assert first > 0
        (old,) = estate.packs_of(estate.last())
        repack(estate.media, Path(estate.media.location) / old, run="repack")
        estate.back_up("b", contents_of(range(40)), sharing=sharing)
        listed = estate.media.view().points[estate.last()].point.disks[0]
        index = estate.media.disk_index(listed.indexes, listed.disk.size)
        assert old not in {item.name for file in index.files for item in file.description.packs}
        estate.require_restores()

    def test_rows_lead_to_where_frames_have_moved(self, estate, first):
        (old,) = first
        media = estate.media
        path = Path(media.location, old)
        media.begin_run(an_intent("mover"))
        (new, _), *_ = repack(media, path, run="mover")
        media.append(DoomEntry(objects=(old,), reason="test"))
        path.unlink()
        assert estate.back_up("b", IMAGE) == (0, 1000 * EXTENT)
        assert estate.packs_of(estate.last()) == {new.name}
        estate.require_restores()


def _table(estate: Estate) -> list[tuple[str, int]]:
    backup = estate.media.view().points[estate.last()].point.disks[0]
    index = estate.media.disk_index(backup.indexes, SIZE)
    table = index.segment(0)
    assert table is not None
    return [(index.packs[table.pack[at]], int(table.offset[at])) for at in range(1000)]


class TestDigestsObjects:
    @pytest.fixture
    def sample(self, estate) -> Path:
        estate.back_up("a", IMAGE)
        (ref,) = estate.media.view().points[estate.last()].point.disks[0].digests
        return Path(estate.media.location, ref.name)

    def test_it_samples_the_first_sixteen_and_one_of_sixty_four(self, estate, sample):
        (ref,) = estate.media.view().points[estate.last()].point.disks[0].digests
        _, rows = open_digests(estate.media.store, ref, media_id=estate.media.id)
        expected = sorted(
            int.from_bytes(fingerprint(data).digest[:8], "big")
            for at, data in IMAGE.items()
            if at < 16 or not fingerprint(data).digest[0] & 0x3F
        )
        assert rows["digest"].tolist() == expected
        assert set(rows["segment"].tolist()) == {0}

    def test_it_samples_whole_extents_only(self, estate):
        contents = {**contents_of(range(5)), 5: noise(5)[:512]}
        estate.back_up("a", contents, size=5 * EXTENT + 512)
        (ref,) = estate.media.view().points[estate.last()].point.disks[0].digests
        _, rows = open_digests(estate.media.store, ref, media_id=estate.media.id)
        assert len(rows) == 5

    def test_one_that_is_lost_means_duplicates(self, estate, sample, caplog):
        sample.unlink()
        assert estate.back_up("b", IMAGE) == (1000 * EXTENT, 0)
        estate.require_restores()
        assert any(sample.name in record.message for record in caplog.records)

    def test_one_that_was_altered_is_not_parsed(self, estate, sample, monkeypatch):
        flip_bit(sample, 8 * 20)
        monkeypatch.setattr("vsa.media.parquet.opened", None)
        sharing = estate.media.sharing(Offer.MEDIA)
        sharing.of("client")

    def test_one_that_cannot_be_stored_costs_no_backup(self, tmp_path, media, caplog):
        def refuse(_number: int, method: str, name: str):
            failing = method == "create" and "/digests/" in name
            return (Moment.BEFORE, MediaUnusable("no")) if failing else None

        store = FaultyStore(FolderStore(tmp_path / "media"), refuse)
        writer = a_writer(tmp_path, "r1", media.sharing(Offer.MEDIA), store)
        put(writer, range(5))
        written = writer.finish()
        assert written.digests is None
        assert read_disk(media, written.indexes, SIZE) == contents_of(range(5))

    @pytest.mark.parametrize("lie", ["segment", "index", "digest"])
    def test_one_that_lies_leads_nowhere(self, estate, tmp_path, lie, caplog):
        """As a hostile writer would make it: the log pins it, but it does not say what is so."""
        media, disk = estate.media, a_disk("a", size=SIZE)
        media.begin_run(an_intent("r"))
        written = write_disk(
            media, IMAGE, run="r", disk=disk, scratch=tmp_path, sharing=media.sharing(Offer.MEDIA)
        )
        _, rows = open_digests(media.store, written.digests, media_id=media.id)
        Path(media.location, written.digests.name).unlink()
        index = written.index
        about = open_index(media.store, index, media_id=media.id, extent_size=EXTENT, overhead=0).description
        if lie == "segment":
            rows["segment"] = 1
        elif lie == "index":
            index = index.model_copy(update={"sha256": "0" * 64})
        else:
            rows["digest"] += np.uint64(1)
        digests = store_digests(media.store, index, about, rows)
        media.append(a_point(disk, written.indexes, packs=written.packs, digests=[digests]), run="r")
        assert estate.back_up("b", IMAGE) == (1000 * EXTENT, 0)
        estate.require_restores()

    def test_what_fails_is_said_once(self, estate, sample, caplog):
        (ref,) = estate.media.view().points[estate.last()].point.disks[0].indexes
        flip_bit(Path(estate.media.location, ref.name), 8 * 100)
        assert estate.back_up("b", IMAGE) == (1000 * EXTENT, 0)
        said = [r for r in caplog.records if r.levelno == logging.WARNING and ref.name in r.message]
        assert len(said) == 1


class TestBounds:
    def _limited(self, media: Media, *, loaded_rows: int = 10**6, sample_rows: int = 10**6) -> StoredExtents:
        sample = ExtentSample(lambda ref: open_digests(media.store, ref, media_id=media.id), rows=sample_rows)
        return StoredExtents(
            sample,
            opened=media.whereabouts.index,
            relocations=media.whereabouts.moves,
            size_of=media.store.size,
            loaded_rows=loaded_rows,
        )

    def _sharing(self, media: Media, stored: StoredExtents) -> Sharing:
        return Sharing(Offer.MEDIA, recent=RecentExtents(limit=10), stored=stored, view=media.view)

    def test_loaded_segments_stay_within_their_bound_and_the_rest_is_stored_again(self, estate):
        for number in range(4):
            estate.back_up(f"a{number}", {at: noise((number, at)) for at in range(1000)})
        stored = self._limited(estate.media, loaded_rows=2500)
        sharing = self._sharing(estate.media, stored)
        mixed = {4 * at + number: noise((number, at)) for at in range(1000) for number in range(4)}
        written, shared = estate.back_up("b", mixed, sharing=sharing)
        assert 0 < stored.loaded_rows <= 2500
        assert written + shared == 4000 * EXTENT
        assert shared > 0
        estate.require_restores()

    def test_the_sample_stays_within_its_bound_newest_first(self, estate):
        for number in range(4):
            estate.back_up(f"a{number}", {at: noise((number, at)) for at in range(1000)})
        stored = self._limited(estate.media, sample_rows=250)
        sharing = self._sharing(estate.media, stored)
        oldest = estate.back_up("b", {at: noise((0, at)) for at in range(1000)}, sharing=sharing)
        newest = estate.back_up("c", {at: noise((3, at)) for at in range(1000)}, sharing=sharing)
        assert oldest[1] == 0
        assert newest[1] > 500 * EXTENT
        estate.require_restores()

    def test_samples_that_are_denser_than_their_size_tells_are_cut(self, estate):
        for number in range(2):
            estate.back_up(f"a{number}", {at: noise((number, at)) for at in range(1000)})
        media = estate.media

        def opened(ref):
            about, rows = open_digests(media.store, ref, media_id=media.id)
            dense = np.repeat(rows[:1], 300)
            dense["digest"] += np.arange(300, dtype=np.uint64)
            return about, dense

        sample = ExtentSample(opened, rows=300)
        sample.refresh(media.view())
        assert len(sample) == 300
        (newest,) = media.view().points[estate.last()].point.disks[0].indexes
        first = int(opened(media.view().points[estate.last()].point.disks[0].digests[0])[1]["digest"][0])
        assert all(sample.find(first + at).index == newest for at in range(300))

    def test_loading_in_vain_ends(self, estate, monkeypatch):
        """Segments that hold one extent of what is stored each are not worth what they cost to load."""
        monkeypatch.setattr(stored_extents, "_CREDIT", 64.0)
        sampled = [seed for seed in range(8000) if not fingerprint(noise(seed)).digest[0] & 0x3F][:20]
        for number, seed in enumerate(sampled):
            others = {at: noise((number, at)) for at in range(1, 20)}
            estate.back_up(f"a{number}", {0: noise(seed), **others})
        stored = self._limited(estate.media)
        estate.back_up("b", dict(enumerate(map(noise, sampled))), sharing=self._sharing(estate.media, stored))
        assert stored.loaded_rows <= 3 * 20
        estate.require_restores()
