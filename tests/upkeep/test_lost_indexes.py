"""An index or a table of moves that can no longer be read: what can be had again, and the way out (F65)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import small_media
from tests.media import second_reader
from tests.media.around_store import AroundStore
from tests.media.faulty_store import FaultyStore
from tests.media.making import EXTENT, KEYS, back_up, flip_bit, named_key, new_media, noise, read_point
from tests.media.moving import packs_of
from tests.upkeep.keeping import SELF, Keeping
from vsa.errors import MediaConflict, MediaDamaged
from vsa.media import layout, pinned
from vsa.media.entries import DoomEntry, MovedIndex, RelocateEntry
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.media.records import RecordWriter
from vsa.model import IndexRef
from vsa.upkeep import forgetting, lost_indexes, needs, recorded
from vsa.upkeep.forgetting import Limits, forget, named, plan_forgetting
from vsa.upkeep.lost_indexes import has_gone_on
from vsa.upkeep.objects import Objects
from vsa.upkeep.prune import carry_out
from vsa.upkeep.rebuild import Rebuilt, rebuild
from vsa.upkeep.record import record_damage
from vsa.upkeep.report import Depth
from vsa.upkeep.verify import verify

Loss = Callable[[Path], None]
LOSSES: list[Loss] = [lambda path: flip_bit(path, 999), Path.unlink]


@pytest.fixture
def keeping(tmp_path) -> Keeping:
    """A base and two deltas of one disk, and a point of another."""
    keeping = Keeping(tmp_path)
    keeping.back_up({at: ("a", at) for at in range(40)})
    keeping.back_up({at: ("b", at) for at in range(4)})
    keeping.back_up({at: ("c", at) for at in range(2)})
    keeping.back_up({0: "other"}, disk="data")
    return keeping


def index_of(keeping: Keeping, slot: int, number: int = 0) -> str:
    """The name of an index that a point names, the base if nothing is said."""
    return keeping.media.view().points[slot].point.disks[0].indexes[number].name


def led_to(keeping: Keeping, name: str) -> str:
    """The index that stands in for another."""
    return keeping.media.view().sound_indexes()[name].name


def spoil_records(keeping: Keeping, run: str) -> None:
    for made in keeping.media.view().points.values():
        if made.run == run:
            for ref in made.point.records:
                flip_bit(keeping.folder / ref.name, 8 * 100)


def verified(keeping: Keeping):
    return verify(keeping.media, Depth.BYTES, scratch=keeping.scratch, date=keeping.now.date())


def rebuilt(keeping: Keeping, source: Path, target: Path) -> Rebuilt:
    return rebuild(
        FolderStore(source),
        FolderStore.make(target),
        scratch=keeping.scratch,
        now=keeping.now,
        random=os.urandom,
    )


def require_rebuilt(keeping: Keeping, folder: Path, slots: list[int]) -> None:
    """These points come back from packs alone, and from those of the media so made, pruned before."""
    source = keeping.folder
    for name in ("once", "twice"):
        target = folder / name
        made = rebuilt(keeping, source, target)
        held = [read_point(made.media, slot) for slot in made.points]
        assert all(keeping.held[slot] in held for slot in slots), made.lost
        small_media.prune(made.media)
        assert [read_point(made.media, slot) for slot in made.points] == held
        source = target


class TestPutBack:
    @pytest.mark.parametrize("lose", LOSSES, ids=["flipped", "missing"])
    def test_a_prune_heals_every_point_over_an_index_that_was_recorded(self, keeping, lose):
        lost = index_of(keeping, 0)
        lose(keeping.folder / lost)
        record_damage(keeping.media, verified(keeping))
        assert all(keeping.media.view().harm_of(slot) for slot in range(3))
        report = keeping.prune()
        assert report.regained == (lost,)
        keeping.require_sound()
        view = keeping.media.view()
        assert not any(view.harm_of(slot) for slot in range(4))
        assert verified(keeping).findings == ()
        assert keeping.prune().objects == 0
        assert keeping.plan().is_empty and not keeping.plan().unknown

    def test_another_reader_follows_what_stands_in(self, keeping, tmp_path):
        (keeping.folder / index_of(keeping, 0)).unlink()
        keeping.prune(threshold=0.0)
        for slot, holds in keeping.held.items():
            target = tmp_path / f"{slot}.img"
            name = keeping.media.view().points[slot].point.disks[0].disk.name
            second_reader.restore(keeping.folder, slot, name, target)
            image = target.read_bytes()
            found = {at: image[at * EXTENT :][:EXTENT] for at in range(len(image) // EXTENT)}
            assert {at: data for at, data in found.items() if any(data)} == holds

    def test_a_plan_says_so_and_changes_nothing(self, keeping):
        flip_bit(keeping.folder / index_of(keeping, 0), 999)
        before, head = keeping.objects(), keeping.media.view().head
        plan = keeping.plan(store=FolderStore(keeping.folder))
        assert plan.regained == (index_of(keeping, 0),) and not plan.is_empty
        assert (keeping.objects(), keeping.media.view().head) == (before, head)

    def test_all_that_are_lost_come_back_at_once(self, keeping):
        lost = {name for slot in range(4) for name in names_of(keeping, slot)}
        for name in lost:
            (keeping.folder / name).unlink()
        head = keeping.media.view().head
        assert set(keeping.prune(threshold=0.0).regained) == lost
        keeping.require_sound()
        assert [item.slot for item in keeping.media.view().relocations] == [head]

    def test_more_than_one_entry_can_name_come_back_and_packs_are_rewritten_all_the_same(
        self, keeping, monkeypatch
    ):
        monkeypatch.setattr(lost_indexes, "AT_A_TIME", 1)
        keeping.forget(0, 1)
        lost = {name for slot in (2, 3) for name in names_of(keeping, slot)}
        for name in lost:
            (keeping.folder / name).unlink()
        report = keeping.prune(threshold=1.0)
        moved = keeping.media.view().relocations
        assert len([item for item in moved if item.entry.indexes]) == len(report.regained) == len(lost) > 1
        assert report.packs and not report.repacked.stopped
        keeping.require_sound()

    def test_what_a_forgotten_point_alone_needed_goes_in_the_same_prune(self, keeping):
        keeping.forget(1)
        (keeping.folder / index_of(keeping, 0)).unlink()
        report = keeping.prune()
        assert (report.points, len(report.regained)) == ((1,), 1)
        assert report.deleted.objects > 0
        keeping.require_sound()

    def test_an_index_whose_own_point_is_gone_comes_back_and_so_does_its_copy(self, keeping):
        """By the records of a run that stay as long as its index is needed, and by those of the copy."""
        name = index_of(keeping, 0)
        keeping.forget(0)
        keeping.prune()
        (keeping.folder / name).unlink()
        keeping.prune()
        copy = led_to(keeping, name)
        keeping.prune()
        assert layout.run_of(copy) != layout.run_of(name)
        flip_bit(keeping.folder / copy, 999)
        assert keeping.prune().regained == (copy,)
        assert led_to(keeping, name) not in (name, copy)
        assert led_to(keeping, copy) == led_to(keeping, name)
        keeping.require_sound()
        assert keeping.plan().is_empty

    def test_a_copy_comes_back_by_the_record_of_the_first_run_if_its_own_is_lost(self, keeping):
        name = index_of(keeping, 0)
        (keeping.folder / name).unlink()
        keeping.prune(threshold=0.0)
        copy = led_to(keeping, name)
        (keeping.folder / copy).unlink()
        for path in packs_of(keeping.folder, layout.run_of(copy) or "", records=True):
            path.unlink()
        assert keeping.prune().regained == (copy,)
        keeping.require_sound()

    @pytest.mark.parametrize("lose", LOSSES, ids=["flipped", "missing"])
    @pytest.mark.parametrize("depth", [Depth.OBJECTS, Depth.RESTORE])
    def test_a_verify_beside_finds_nothing_that_is_still_wrong(self, keeping, depth, lose):
        lose(keeping.folder / index_of(keeping, 0))
        told = []

        def put_back(_number, _method, name):
            if layout.is_pack(name) and not told:
                told.append(keeping.prune(folder="other", threshold=0.0).regained)

        media = keeping.opened(FaultyStore(FolderStore(keeping.folder), put_back))
        report = verify(media, depth, scratch=keeping.scratch, date=keeping.now.date())
        assert told == [(index_of(keeping, 0),)]
        assert report.is_sound, report.text()
        assert any("a copy stands in for it" in remark for remark in report.remarks)

    def test_points_that_are_made_later_name_the_copy_and_a_rebuild_has_them(self, keeping, tmp_path):
        name = index_of(keeping, 0)
        (keeping.folder / name).unlink()
        keeping.prune(threshold=0.0)
        late = keeping.back_up({7: "late"})
        assert led_to(keeping, name) in {index_of(keeping, late, at) for at in range(2)}
        keeping.forget(0, 1, 2)
        keeping.prune(threshold=0.0)
        require_rebuilt(keeping, tmp_path, [late])

    def test_a_rebuild_has_the_older_points_that_name_what_was_put_back(self, keeping, tmp_path):
        """Though the point is gone that wrote the index, and what holds its record is pruned twice over."""
        (keeping.folder / index_of(keeping, 0)).unlink()
        keeping.prune(threshold=0.0)
        keeping.forget(0)
        keeping.prune(threshold=0.0)
        keeping.prune(threshold=0.0)
        require_rebuilt(keeping, tmp_path, [1, 2, 3])

    def test_also_if_the_record_is_gone_that_has_it_by_its_name(self, keeping, tmp_path):
        """As prunes of earlier versions left it; what records the copy is of a point that has holes."""
        records = keeping.media.view().points[0].point.records
        (keeping.folder / index_of(keeping, 0)).unlink()
        keeping.prune(threshold=0.0)
        keeping.forget(0)
        assert keeping.prune(threshold=1.0).packs
        for ref in records:
            (keeping.folder / ref.name).unlink()
        require_rebuilt(keeping, tmp_path, [1, 2, 3])

    def test_the_record_goes_with_the_last_point_that_names_the_index(self, keeping):
        records = {ref.name for ref in keeping.media.view().points[0].point.records}
        (keeping.folder / index_of(keeping, 0)).unlink()
        keeping.forget(0)
        keeping.prune()
        assert records <= keeping.objects()
        keeping.forget(1, 2)
        keeping.prune()
        assert records.isdisjoint(keeping.objects())

    def test_one_part_of_a_large_index_is_enough(self, keeping, monkeypatch):
        """Indexes above a size are fetched in parts, and what is wrong shows when rows are read."""
        for module in (pinned, needs):
            monkeypatch.setattr(module, "FETCHED_WHOLE", 100)
        flip_bit(keeping.folder / index_of(keeping, 0), 999)
        assert keeping.prune().regained == (index_of(keeping, 0),)
        keeping.require_sound()

    def test_if_others_have_moved_frames_meanwhile_nothing_is_done(self, keeping):
        keeping.forget(1)
        lost = index_of(keeping, 0)
        (keeping.folder / lost).unlink()
        plan, before = keeping.plan(folder="first"), keeping.packs()
        keeping.media.append(RelocateEntry(reason="somebody else"), run="elsewhere")
        with pytest.raises(MediaConflict, match="plan it again"):
            carry_out(plan, process=SELF)
        assert before.keys() <= keeping.packs().keys()
        assert keeping.prune().regained == (lost,)
        keeping.require_sound()

    def test_a_plan_that_another_prune_has_overtaken_says_so(self, keeping):
        """Which has put the index back and, as those of earlier versions did, let its first record go."""
        lost, records = index_of(keeping, 0), keeping.media.view().points[0].point.records
        (keeping.folder / lost).unlink()
        keeping.forget(0)
        told = []

        def prune_first(_number, _method, name):
            if name == lost and not told:
                told.append(True)
                keeping.prune(folder="other")
                for ref in records:
                    (keeping.folder / ref.name).unlink()

        with pytest.raises(MediaConflict, match="plan it again"):
            keeping.plan(store=FaultyStore(FolderStore(keeping.folder), prune_first))
        assert told and keeping.plan().regained == ()
        keeping.require_sound()

    def test_records_that_no_listing_shows_are_found_by_the_names_that_their_point_gives(self, keeping):
        """F46."""

        class Misses(AroundStore):
            def names(self, prefix, *, after=""):
                found = super().names(prefix, after=after)
                return (name for name in found if not name.startswith("runs/run-1/packs/"))

        lost = index_of(keeping, 0)
        (keeping.folder / lost).unlink()
        assert keeping.prune(store=Misses(FolderStore(keeping.folder)), threshold=0.0).regained == (lost,)
        keeping.require_sound()

    def test_a_copy_that_the_store_does_not_keep_as_it_was_given_stands_in_for_nothing(self, keeping):
        class Spoils(AroundStore):
            def create(self, name, parts):
                if layout.is_index(name):
                    data = b"".join(parts)
                    parts = [data[:-1] + bytes([data[-1] ^ 1])]
                super().create(name, parts)

        (keeping.folder / index_of(keeping, 0)).unlink()
        with pytest.raises(MediaDamaged, match="/index/"):
            keeping.prune(store=Spoils(FolderStore(keeping.folder)), threshold=0.0)
        assert keeping.opened().view().relocations == ()
        keeping.prune(threshold=0.0)
        keeping.require_sound()

    def test_copies_are_recorded_with_the_points_of_the_runs_that_wrote_the_indexes(self, keeping, tmp_path):
        """As a rebuild needs them where the first records are gone."""
        self.lose_all_indexes_and_their_first_records(keeping)
        require_rebuilt(keeping, tmp_path, [0, 1, 2, 3])

    def test_rebuilt_points_name_the_copies_themselves(self, keeping, tmp_path):
        lost = self.lose_all_indexes_and_their_first_records(keeping)
        view = rebuilt(keeping, keeping.folder, tmp_path / "again").media.view()
        named = {ref.name for made in view.points.values() for ref in made.point.disks[0].indexes}
        assert (len(named), named & lost, view.relocations) == (len(lost), set(), ())

    def lose_all_indexes_and_their_first_records(self, keeping: Keeping) -> set[str]:
        """The indexes were put back in between."""
        lost = {name for slot in range(4) for name in names_of(keeping, slot)}
        for name in lost:
            (keeping.folder / name).unlink()
        keeping.prune(threshold=0.0)
        for made in keeping.media.view().points.values():
            for ref in made.point.records:
                (keeping.folder / ref.name).unlink()
        return lost

    def test_a_record_that_holds_something_else_is_not_believed(self, keeping):
        """The log says what an index is; of what a record says of itself nothing counts."""
        media = keeping.media
        own, other = (media.view().points[slot].point for slot in (0, 3))
        codec, store = media.codec, media.store
        (copy,) = recorded.copies_of(store, [ref.name for ref in own.records], codec)
        RecordWriter(store, codec, random=os.urandom).store_copies("run-1", copy.head, other.disks[0].indexes)
        spoil_records(keeping, "run-1")
        (keeping.folder / index_of(keeping, 0)).unlink()
        with pytest.raises(MediaDamaged, match="no record has it"):
            keeping.plan()

    def test_nor_one_whose_bytes_are_not_what_it_says_and_the_next_is_asked(self, keeping, tmp_path):
        name = index_of(keeping, 0)
        data = bytearray((keeping.folder / name).read_bytes())
        data[99] ^= 1
        (ref,) = copy_in_record(keeping, 0).head.indexes
        record_as(keeping, ref, bytes(data))
        made = rebuilt(keeping, keeping.folder, tmp_path / "rebuilt")
        held = [read_point(made.media, slot) for slot in made.points]
        assert all(keeping.held[slot] in held for slot in range(4)), made.lost
        (keeping.folder / name).unlink()
        assert keeping.prune(threshold=0.0).regained == (name,)
        keeping.require_sound()

    def test_nor_one_that_says_another_size_than_its_bytes_have(self, keeping):
        (ref,) = copy_in_record(keeping, 0).head.indexes
        data = (keeping.folder / ref.name).read_bytes()
        longer = ref.model_copy(update={"size": ref.size + 1})
        copy, media = record_as(keeping, longer, data), keeping.media
        assert copy.head.indexes == (longer,)
        assert list(recorded.indexes_of(media.store, copy, media.codec, keeping.scratch)) == []


def copy_in_record(keeping: Keeping, slot: int) -> recorded.Copy:
    """What is recorded of a point and the indexes of its run."""
    media = keeping.media
    names = [ref.name for ref in media.view().points[slot].point.records]
    (copy,) = recorded.copies_of(media.store, names, media.codec)
    return copy


def record_as(keeping: Keeping, ref: IndexRef, data: bytes) -> recorded.Copy:
    """Record bytes as those of an index of the first point, in a record that comes before all others."""

    class Says(AroundStore):
        def read(self, name, at=None, *, limit=None):
            assert name == ref.name
            return data[at.offset : at.end]

    media, head = keeping.media, copy_in_record(keeping, 0).head
    writer = RecordWriter(Says(media.store), media.codec, random=bytes)
    packs = writer.store_copies("run-1", head, [ref])
    (copy,) = recorded.copies_of(media.store, [pack.name for pack in packs], media.codec)
    return copy


@pytest.mark.parametrize(
    ("said", "has"),
    [
        (RelocateEntry(reason="moved"), True),
        (DoomEntry(objects=(layout.pack("run-1", bytes(16)),), reason="doomed"), True),
        (DoomEntry(points=(0,), reason="given up"), True),
        (DoomEntry(runs=("run-9",), reason="fenced"), False),
    ],
    ids=lambda item: getattr(item, "reason", ""),
)
def test_a_log_has_gone_on_once_something_was_moved_doomed_or_given_up(keeping, said, has):
    keeping.forget(0)
    then = keeping.media.view()
    keeping.media.append(said, run="run-9" if isinstance(said, RelocateEntry) else None)
    assert not has_gone_on(then, then)
    assert has_gone_on(then, keeping.media.view()) is has


def test_what_is_led_elsewhere_once_more_is_needed_there_whichever_name_the_log_gives(keeping):
    """Ours leads on from every name; the format does not ask for that."""
    (ref,) = keeping.media.view().points[3].point.disks[0].indexes
    objects = Objects()
    known = needs.Needs(keeping.media, objects)
    for number in range(2):
        copy = ref.model_copy(update={"name": layout.index("run-9", "data", bytes([number] * 8))})
        keeping.media.store.create(copy.name, [keeping.media.store.read(ref.name)])
        moved = (MovedIndex(name=ref.name, ref=copy),)
        keeping.media.append(RelocateEntry(indexes=moved, reason="test"), run="run-9")
        needed = set(objects.named(known.of_points(keeping.media.view(), [3])))
        assert {name for name in needed if layout.is_index(name)} == {copy.name}


class TestRepaired:
    """A sound copy in the place of what the log calls lost: nobody relies on that name again."""

    @pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "not recorded"])
    def test_a_prune_heals_every_point_over_an_index_that_reads_right_again(self, keeping, recorded):
        name = index_of(keeping, 0)
        self.lose_and_repair(keeping, name)
        if not recorded:
            spoil_records(keeping, "run-1")
        assert keeping.plan().regained == keeping.prune().regained == (name,)
        self.require_healed(keeping)
        assert led_to(keeping, name) != name not in keeping.objects()
        if recorded:
            (keeping.folder / led_to(keeping, name)).unlink()
            assert keeping.prune().regained
            keeping.require_sound()

    def test_also_over_the_copy_of_one(self, keeping):
        name = index_of(keeping, 0)
        (keeping.folder / name).unlink()
        spoiled = keeping.prune(threshold=0.0)
        copy = led_to(keeping, name)
        self.lose_and_repair(keeping, copy)
        assert (spoiled.regained, keeping.prune().regained) == ((name,), (copy,))
        self.require_healed(keeping)

    def test_not_what_reads_right_in_all_parts_that_matter_and_is_not_what_was_stored(
        self, keeping, monkeypatch
    ):
        """Of a large index no reader looks at its first four bytes, but a copy has to be the same."""
        for module in (pinned, needs):
            monkeypatch.setattr(module, "FETCHED_WHOLE", 100)
        flip_bit(keeping.folder / index_of(keeping, 0), 0)
        record_damage(keeping.media, verified(keeping))
        spoil_records(keeping, "run-1")
        assert keeping.media.view().is_lost(index_of(keeping, 0))
        assert keeping.prune().regained == ()
        keeping.require_sound()

    def test_what_only_points_need_that_go_is_left_to_go(self, keeping):
        name = index_of(keeping, 3)
        self.lose_and_repair(keeping, name)
        keeping.forget(3)
        assert keeping.prune().regained == () and name not in keeping.objects()

    def lose_and_repair(self, keeping: Keeping, name: str) -> None:
        data = (keeping.folder / name).read_bytes()
        flip_bit(keeping.folder / name, 999)
        record_damage(keeping.media, verified(keeping))
        (keeping.folder / name).write_bytes(data)
        assert any(keeping.media.view().harm_of(slot) for slot in range(4))

    def require_healed(self, keeping: Keeping) -> None:
        view = keeping.media.view()
        assert not any(view.harm_of(slot) for slot in range(4))
        assert not any(view.is_lost(name) for name in view.damaged)
        keeping.require_sound()
        assert not any(found.harm for found in verified(keeping).findings)
        assert keeping.plan().is_empty


@pytest.mark.parametrize("key", KEYS, ids=named_key)
def test_sealed_media_gets_them_back_as_well(tmp_path, key):
    media = new_media(tmp_path / "media", key=key)
    contents = {at: noise(at) for at in range(9)}
    slot = back_up(media, contents, run="r1", scratch=tmp_path)
    (index,) = (tmp_path / "media/runs/r1/index").iterdir()
    flip_bit(index, 999)
    assert small_media.prune(media).regained == (f"runs/r1/index/{index.name}",)
    assert read_point(Media.open(str(tmp_path / "media"), wrapping=key), slot) == contents


class TestWayOut:
    def test_points_over_a_lost_index_can_be_forgotten_and_pruned(self, keeping):
        (keeping.folder / index_of(keeping, 1, -1)).unlink()
        spoil_records(keeping, "run-2")
        harmed = [slot for slot in range(4) if index_of(keeping, 1, -1) in names_of(keeping, slot)]
        before = keeping.objects()
        with pytest.raises(MediaDamaged) as refused:
            keeping.prune()
        assert f"`vsa forget {' '.join(map(str, harmed))}`" in str(refused.value)
        assert "--grace-days 0" in str(refused.value)
        assert "`vsa rebuild`" not in str(refused.value), "which would not have these points either"
        assert keeping.objects() == before
        self.give_up(keeping, harmed)

    def test_points_over_lost_moves_too(self, keeping, tmp_path):
        """Unless a rebuild is preferred, which has them all."""
        keeping.forget(1)
        keeping.prune(threshold=1.0)
        (table,) = {item.entry.table.name for item in keeping.media.view().relocations if item.entry.table}
        (keeping.folder / table).unlink()
        with pytest.raises(MediaDamaged, match="vsa forget") as refused:
            keeping.prune()
        assert table in str(refused.value)
        assert "or make media anew at another place by `vsa rebuild`" in str(refused.value)
        require_rebuilt(keeping, tmp_path, list(keeping.media.view().points))
        said = str(refused.value).partition("`vsa forget ")[2].partition("`")[0]
        self.give_up(keeping, [int(slot) for slot in said.split()])
        assert table not in keeping.objects()

    def test_forgotten_and_pinned_points_are_told_what_keeps_them(self, keeping):
        (keeping.folder / index_of(keeping, 3)).unlink()
        spoil_records(keeping, "run-4")
        keeping.forget(3)
        keeping.pin(3)
        with pytest.raises(MediaDamaged, match=r"give the points up: `vsa pin --unpin 3`, then `vsa prune`"):
            keeping.prune()
        keeping.pin(3, pinned=False)
        assert keeping.prune().points == (3,)

    def give_up(self, keeping: Keeping, harmed: list[int]) -> None:
        """As the refusal says; what others need stays, and the next backup of the disk is whole."""
        assert harmed
        limits = Limits(override_share=True)
        plan = plan_forgetting(keeping.media, named(harmed), now=keeping.now, limits=limits)
        assert plan.untold == tuple(harmed) and plan.obstacles
        forget(keeping.media, plan, now=keeping.now)
        report = keeping.prune()
        assert report.points == tuple(harmed)
        assert plan.freed <= report.deleted.size
        keeping.require_sound()
        keeping.back_up({0: "anew"}, full=True)
        keeping.require_sound()
        assert verified(keeping).findings == ()


def names_of(keeping: Keeping, slot: int) -> set[str]:
    return {ref.name for item in keeping.media.view().points[slot].point.disks for ref in item.indexes}


class TestForgetting:
    def plan(self, keeping: Keeping, *slots: int, **given):
        return plan_forgetting(keeping.media, named(slots), now=keeping.now, limits=Limits(**given))

    def test_what_it_says_is_freed_goes_for_sure_whatever_cannot_be_read(self, keeping):
        """A point that stays may need any pack."""
        sure = self.plan(keeping, 3).freed
        (keeping.folder / index_of(keeping, 1, -1)).unlink()
        plan = self.plan(keeping, 3, override_share=True)
        assert set(plan.untold) <= {1, 2} and plan.untold
        assert 0 < plan.freed < sure
        forget(keeping.media, plan, now=keeping.now)
        assert keeping.prune(threshold=0.0).deleted.size >= plan.freed

    def test_the_other_rules_hold(self, keeping):
        (keeping.folder / index_of(keeping, 0)).unlink()
        assert "more than 50%" in self.plan(keeping, 0, 1).decision.refusals[0]
        keeping.pin(1)
        with pytest.raises(MediaConflict, match="pinned"):
            self.plan(keeping, 1)
        policy = forgetting.by_policy(lambda _: forgetting.Retention(keep_last=1))
        found = plan_forgetting(keeping.media, policy, now=keeping.now, limits=Limits(override_share=True))
        assert [item.slot for item in found.decision.going] == [0]
        assert {item.slot: item.reason for item in found.decision.staying}[2].startswith(
            "the newest sound point"
        )
