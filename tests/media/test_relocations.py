"""Frames that move, are forgotten or go bad: what may follow what in the log (decision 0010)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.media.faulty_store import FaultyStore
from tests.media.making import (
    EXTENT,
    a_disk,
    a_point,
    a_snapshot,
    an_intent,
    back_up,
    new_media,
    noise,
    read_point,
    text,
    write_disk,
)
from tests.media.moving import copied, moved, packs_of, places_in, repack
from vsa.errors import BadRequest, MediaConflict, MediaDamaged, ObjectMissing, ObjectsDoomed, RunStopped
from vsa.media import layout
from vsa.media.entries import (
    Damaged,
    DamageEntry,
    DoomEntry,
    ForgetEntry,
    Harm,
    PinEntry,
    RotateEntry,
    UnforgetEntry,
)
from vsa.media.folder import FolderStore
from vsa.media.layout import IndexKind
from vsa.media.media import Media

FIRST = {0: noise(0), 5: text(5), 9: noise(9)}
CHANGES = {0: None, 5: noise("new"), 7: text(7)}
SECOND = {5: noise("new"), 7: text(7), 9: noise(9)}


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "media"


@pytest.fixture
def media(folder, tmp_path) -> Media:
    """Two points of one disk: r1 in full, r2 on it."""
    media = new_media(folder)
    slot = back_up(media, FIRST, run="r1", scratch=tmp_path)
    back_up(media, CHANGES, run="r2", scratch=tmp_path, base=indexes(media, slot))
    return media


def indexes(media: Media, slot: int):
    return media.view().points[slot].point.disks[0].indexes


def needs(media: Media, slot: int) -> frozenset[str]:
    return media.disk_index(indexes(media, slot), a_disk().size).needs()


def name(folder: Path, path: Path) -> str:
    return str(path.relative_to(folder))


class TestMoving:
    def test_every_point_follows_a_move_and_needs_the_old_pack_no_more(self, media, folder):
        (old,) = packs_of(folder, "r1")
        new = repack(media, old, run="m1")
        old.unlink()
        assert (read_point(media, 0), read_point(media, 1)) == (FIRST, SECOND)
        for slot in (0, 1):
            assert name(folder, old) not in needs(media, slot)
            assert new[0][0].name in needs(media, slot)
            assert media.view().relocations[0].entry.table.name in needs(media, slot)

    def test_moves_follow_each_other_in_log_order(self, media, folder):
        (old,) = packs_of(folder, "r1")
        (ref, _), *_ = repack(media, old, run="m1")
        repack(media, folder / ref.name, run="m2")
        old.unlink()
        (folder / ref.name).unlink()
        assert (read_point(media, 0), read_point(media, 1)) == (FIRST, SECOND)

    def test_a_point_that_is_committed_later_on_the_old_index_follows_it_too(self, media, folder, tmp_path):
        base = indexes(media, 1)
        (old,) = packs_of(folder, "r1")
        repack(media, old, run="m1")
        old.unlink()
        slot = back_up(media, {1: text(1)}, run="r3", scratch=tmp_path, base=base)
        assert read_point(media, slot) == SECOND | {1: text(1)}

    def test_an_index_that_absorbs_older_ones_holds_the_new_places(self, media, folder, tmp_path):
        (old,) = packs_of(folder, "r1")
        repack(media, old, run="m1")
        disk = a_disk()
        media.begin_run(an_intent("r3"))
        parent = media.disk_index(indexes(media, 1), disk.size)
        contents = {at: text(at) for at in range(20, 40)}
        written = write_disk(
            media,
            contents,
            run="r3",
            disk=disk,
            scratch=tmp_path,
            kind=IndexKind.DELTA,
            parent=parent,
        )
        assert len(written.indexes) == 1
        slot = media.append(a_point(disk, written.indexes, packs=written.packs), run="r3")
        assert read_point(media, slot) == SECOND | contents
        assert not [n for n in needs(media, slot) if "/moves/" in n or n == name(folder, old)]

    def test_one_that_was_planned_before_another_is_refused(self, media, folder):
        (first,), (second,) = packs_of(folder, "r1"), packs_of(folder, "r2")
        before = media.view()
        repack(media, first, run="m1")
        with pytest.raises(MediaConflict, match="plan it again"):
            repack(media, second, run="m2", planned_on=before)
        assert len(media.view().relocations) == 1

    def test_nothing_is_led_to_what_is_doomed(self, media, folder):
        (path,) = packs_of(folder, "r1")
        old = places_in(media, path)
        new = copied(media, old, run="m1")
        entry = moved(media, old, new, run="m2")
        media.append(DoomEntry(runs=("m1",), objects=(new[0][0].name,), reason="an orphan"))
        with pytest.raises(ObjectsDoomed, match=new[0][0].name):
            media.append(entry, run="m2")

    def test_a_fenced_run_moves_nothing(self, media, folder):
        (path,) = packs_of(folder, "r1")
        media.append(DoomEntry(runs=("m1",), reason="its process ended"))
        with pytest.raises(RunStopped):
            repack(media, path, run="m1")

    def test_what_it_leads_to_must_be_there(self, media, folder):
        (path,) = packs_of(folder, "r1")
        old = places_in(media, path)
        new = copied(media, old, run="m1")
        entry = moved(media, old, new, run="m1")
        (folder / new[0][0].name).unlink()
        with pytest.raises(ObjectMissing):
            media.append(entry, run="m1")

    def test_entry_and_table_must_agree(self, media, folder):
        (path,) = packs_of(folder, "r1")
        old = places_in(media, path)
        entry = moved(media, old, copied(media, old, run="m1"), run="m1")
        with pytest.raises(MediaDamaged, match="other packs"):
            media.append(entry.model_copy(update={"packs": ()}), run="m1")


class TestDooming:
    def test_a_row_that_moved_away_needs_nothing_of_a_doomed_pack(self, media, folder, tmp_path):
        base = indexes(media, 1)
        (old,) = packs_of(folder, "r1")
        repack(media, old, run="m1")
        media.append(DoomEntry(objects=(name(folder, old),), reason="repacked"))
        slot = back_up(media, {1: text(1)}, run="r3", scratch=tmp_path, base=base)
        assert read_point(media, slot) == SECOND | {1: text(1)}

    def test_a_row_that_did_not_move_refuses_the_commit(self, media, folder, tmp_path):
        """As when a repacker did not know of it: only the other frames were copied."""
        base = indexes(media, 1)
        (path,) = packs_of(folder, "r1")
        old = places_in(media, path)[:1]
        entry = moved(media, old, copied(media, old, run="m1"), run="m1")
        media.append(entry, run="m1")
        media.append(DoomEntry(objects=(name(folder, path),), reason="repacked"))
        with pytest.raises(ObjectsDoomed, match="read those extents again"):
            back_up(media, {1: text(1)}, run="r3", scratch=tmp_path, base=base)

    def test_a_row_that_moved_to_a_doomed_pack_refuses_the_commit(self, media, folder, tmp_path):
        """No index names the pack that moves lead to; it may be doomed while what was moved is not."""
        base = indexes(media, 0)
        (path,) = packs_of(folder, "r1")
        new = repack(media, path, run="m1")
        media.append(DoomEntry(runs=("m1",), objects=(new[0][0].name,), reason="only r2 needed it"))
        with pytest.raises(ObjectsDoomed, match=new[0][0].name):
            back_up(media, {1: text(1)}, run="r3", scratch=tmp_path, base=base, parent=0)

    def test_moves_that_come_while_a_point_is_committed_count(self, media, folder, tmp_path):
        base = indexes(media, 0)
        (path,) = packs_of(folder, "r1")
        other = Media.open(str(folder), write=True)

        def move_and_doom(_number: int, method: str, name: str) -> None:
            if method == "create" and name == layout.slot(2) and other.view().head == 2:
                new = repack(other, path, run="m1")
                other.append(DoomEntry(runs=("m1",), objects=(new[0][0].name,), reason="x"))

        late = Media(FaultyStore(FolderStore(folder), move_and_doom), write=True)
        with pytest.raises(ObjectsDoomed):
            back_up(late, {1: text(1)}, run="r3", scratch=tmp_path, base=base, parent=0)

    def test_a_parent_that_is_given_up_and_deleted_is_no_damage(self, media, folder, tmp_path):
        base = indexes(media, 0)
        media.append(ForgetEntry(points=(0, 1), reason="x"))
        gone = tuple(ref.name for ref in base)
        media.append(DoomEntry(objects=gone, points=(0, 1), reason="x"))
        for item in gone:
            (folder / item).unlink()
        with pytest.raises(ObjectsDoomed, match="given up"):
            back_up(media, {1: text(1)}, run="r3", scratch=tmp_path, base=base)

    def test_only_forgotten_points_are_given_up(self, media):
        with pytest.raises(MediaConflict, match="not forgotten"):
            media.append(DoomEntry(points=(0,), reason="x"))
        media.append(PinEntry(points=(0,)))
        with pytest.raises(MediaConflict, match="pinned"):
            media.append(ForgetEntry(points=(0,), reason="x"))

    def test_objects_of_committed_runs_may_be_doomed(self, media, folder):
        (path,) = packs_of(folder, "r2")
        media.append(DoomEntry(objects=(name(folder, path),), reason="nobody needs it"))
        assert media.view().doomed == {name(folder, path)}


class TestForgetting:
    def test_a_forgotten_point_is_neither_the_latest_nor_a_base_until_it_is_called_back(
        self, folder, tmp_path
    ):
        media, disk = new_media(folder), a_disk()
        back_up(media, FIRST, run="r1", scratch=tmp_path)
        media.begin_run(an_intent("r2"))
        media.append(a_point(disk, indexes(media, 0), bases=[a_snapshot(disk, "b")]), run="r2")
        assert media.view().base_of(disk.key) == (1, a_snapshot(disk, "b"))
        media.append(ForgetEntry(points=(1,), reason="x"))
        view = media.view()
        assert (view.base_of(disk.key), dict(view.bases())) == (None, {})
        assert view.latest_point_of_disk(disk.key)[0] == 0
        assert [made.slot for made in view.live] == [0]
        media.append(UnforgetEntry(points=(1,)))
        view = media.view()
        assert view.base_of(disk.key)[0] == view.latest_point_of_disk(disk.key)[0] == 1

    def test_a_point_that_was_given_up_cannot_be_called_back(self, media):
        media.append(ForgetEntry(points=(1,), reason="x"))
        media.append(DoomEntry(points=(1,), reason="grace has passed"))
        assert list(media.view().points) == [0]
        with pytest.raises(MediaConflict, match="given up"):
            media.append(UnforgetEntry(points=(1,)))

    @pytest.mark.parametrize(
        ("entry", "error"),
        [
            (ForgetEntry(points=(7,), reason="x"), BadRequest),
            (UnforgetEntry(points=(0,)), BadRequest),
            (PinEntry(points=(7,)), BadRequest),
            (RotateEntry(key=1), BadRequest),
        ],
    )
    def test_entries_must_make_sense(self, media, entry, error):
        with pytest.raises(error):
            media.append(entry)

    def test_a_point_is_forgotten_once(self, media):
        media.append(ForgetEntry(points=(0,), reason="x"))
        with pytest.raises(MediaConflict, match="forgotten already"):
            media.append(ForgetEntry(points=(0,), reason="x"))


class TestDamage:
    def spoil(self, media: Media, folder: Path, run: str, at: int) -> tuple[str, int]:
        """Record a frame of a run's pack as damaged."""
        (path,) = packs_of(folder, run)
        ref, frame = places_in(media, path)[at]
        harm = Harm(points=(0,), disk_key=a_disk().key, ranges=((0, EXTENT),))
        objects = (Damaged(name=ref.name, offsets=(frame.offset,)),)
        media.append(DamageEntry(objects=objects, harm=(harm,), reason="a flipped bit"))
        return ref.name, frame.offset

    def test_nothing_is_led_to_a_damaged_frame(self, media, folder):
        bad = self.spoil(media, folder, "r1", 0)
        ((other, *_),) = [places_in(media, path) for path in packs_of(folder, "r2")]
        target = next(p for p in places_in(media, folder / bad[0]) if p[1].offset == bad[1])
        with pytest.raises(ObjectsDoomed, match="found damaged"):
            media.append(moved(media, [other], [target], run="m1"), run="m1")
        sound = places_in(media, folder / bad[0])[1]
        media.append(moved(media, [other], [sound], run="m1"), run="m1")

    def test_what_was_healed_is_whole_again_and_its_old_place_stays_bad(self, media, folder):
        bad = self.spoil(media, folder, "r1", 0)
        assert [item.ranges for item in media.view().harm_of(0)] == [((0, EXTENT),)]
        old = [p for p in places_in(media, folder / bad[0]) if p[1].offset == bad[1]]
        healed = (Damaged(name=bad[0], offsets=(bad[1],)),)
        entry = moved(media, old, copied(media, old, run="m1"), run="m1")
        media.append(entry.model_copy(update={"healed": healed}), run="m1")
        view = media.view()
        assert view.harm_of(0) == ()
        assert view.is_damaged(*bad)

    def test_a_run_may_not_share_a_damaged_frame_but_may_carry_one_on(self, media, folder, tmp_path):
        disk = a_disk()
        base = indexes(media, 0)
        bad, _ = self.spoil(media, folder, "r1", 2)
        # Carried on: extent 9 of the parent is the damaged one.
        carried = back_up(media, {1: text(1)}, run="r3", scratch=tmp_path, base=base, parent=0)
        assert carried == 3
        # Shared: a point of another disk whose index says the same places, as deduplication would.
        media.begin_run(an_intent("r4"))
        with pytest.raises(ObjectsDoomed, match=bad):
            media.append(a_point(disk, base), run="r4")
        assert media.append(a_point(disk, base, parent=0), run="r4") == 4
