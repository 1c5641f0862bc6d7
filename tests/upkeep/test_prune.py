"""Pruning: what is needed stays, what is not goes, whoever else is at work and whatever fails."""

from __future__ import annotations

import datetime as dt
import json
from contextlib import suppress
from dataclasses import replace

import pytest
from crc32c import crc32c

from tests.faults import small_media
from tests.media.faulty_store import FaultyStore, Moment
from tests.media.making import NOW, flip_bit
from tests.media.test_documents import proven
from tests.upkeep.keeping import DAY, GONE, SELF, Keeping
from vsa.errors import (
    BadRequest,
    DeleteRefused,
    MediaConflict,
    MediaDamaged,
    MediaUnusable,
    ObjectsDoomed,
    RunStopped,
)
from vsa.media import layout
from vsa.media.checkpoint import encode
from vsa.media.entries import DoomEntry, PinEntry
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.media.pack import FOOTER_SIZE, HEADER_SIZE, PackFooter
from vsa.media.signs import SILENT_AFTER, Sign, give
from vsa.upkeep import doom
from vsa.upkeep.clock import TOLERANCE
from vsa.upkeep.deleting import doomed_now
from vsa.upkeep.prune import carry_out, plan_prune
from vsa.upkeep.report import Depth
from vsa.upkeep.verify import verify


@pytest.fixture
def keeping(tmp_path):
    return Keeping(tmp_path)


def test_what_only_a_forgotten_point_needs_goes_when_its_grace_is_over(keeping):
    old = keeping.back_up({0: "a", 1: "b"})
    new = keeping.back_up({0: "c", 1: "d"}, full=True)
    keeping.forget(old)
    keeping.now += 13 * DAY
    assert keeping.plan(days=14).points == ()
    assert keeping.prune(days=14).deleted.objects == 0
    keeping.now += 2 * DAY
    report = keeping.prune(days=14)
    assert report.points == (old,)
    # A pack, an index and their record, and the intents of both runs, which are over and old.
    assert (report.objects, report.deleted.objects) == (5, 5)
    assert set(keeping.media.view().points) == {new}
    keeping.require_sound()


def forgotten_at(keeping, clock, slot):
    """Forget a point on a machine with another clock."""
    now, keeping.now = keeping.now, clock
    keeping.forget(slot)
    keeping.now = now


SECOND = dt.timedelta(seconds=1)
LONG_AGO, FUTURE = NOW.replace(year=2001), NOW.replace(year=2099)


def test_a_writer_whose_clock_is_behind_takes_nothing_from_the_grace(keeping):
    """F48: it needs no right to delete for that, so it must not decide what a prune deletes."""
    old, new = keeping.back_up({0: "a"}), keeping.back_up({0: "b"}, full=True)
    keeping.now += DAY
    keeping.media.append(PinEntry(points=(new,)))
    forgotten_at(keeping, LONG_AGO, old)
    keeping.now += 13 * DAY
    assert keeping.plan(days=14).points == () and keeping.prune(days=14).points == ()
    assert keeping.plan(days=14).waiting == (old,)
    keeping.require_sound()
    keeping.now += 2 * DAY
    assert keeping.prune(days=14).points == (old,)


def test_what_an_older_checkpoint_says_of_times_gives_up_nothing(keeping):
    """Older writers put the entry's own time into it."""
    old = keeping.back_up({0: "a"})
    keeping.back_up({0: "b"}, full=True)
    forgotten_at(keeping, LONG_AGO, old)
    view = replace(keeping.media.view(), forgotten={old: LONG_AGO}, latest=None)
    keeping.media.store.create(layout.checkpoint(view.head - 1), [encode(view, keeping.media.id)])
    keeping.media = keeping.opened()
    assert keeping.media.view().forgotten == {old: LONG_AGO}
    assert keeping.prune(days=14).points == ()
    keeping.require_sound()


def test_one_entry_of_the_future_stops_pruning_until_somebody_says_whose_clock_is_right(keeping):
    """F48."""
    old, new = keeping.back_up({0: "a"}), keeping.back_up({0: "b"}, full=True)
    forgotten_at(keeping, FUTURE, new)
    keeping.unforget(new)
    keeping.forget(old)
    keeping.now += 30 * DAY
    with pytest.raises(BadRequest, match=r"log/000000000002 says .* 2099-.*--trust-clock"):
        keeping.plan(days=14)
    assert keeping.prune(days=31, trust_clock=True).points == ()
    assert keeping.prune(days=29, trust_clock=True).points == (old,)
    keeping.require_sound()


def test_clocks_that_are_a_little_apart_stop_nothing(keeping):
    keeping.back_up({0: "a"})
    then = keeping.now
    keeping.now = then - TOLERANCE
    assert keeping.plan().points == ()
    keeping.now -= SECOND
    with pytest.raises(BadRequest, match="set the clock of this machine"):
        keeping.plan()


@pytest.mark.parametrize(("ahead", "goes"), [(TOLERANCE, False), (TOLERANCE + SECOND, True)])
def test_a_trusted_clock_does_not_make_what_is_a_little_ahead_of_it_wrong(keeping, ahead, goes):
    """What was forgotten after an entry of it is forgotten since then, and its grace begins then."""
    old, new = keeping.back_up({0: "a"}), keeping.back_up({0: "b"}, full=True)
    forgotten_at(keeping, keeping.now + ahead, new)
    keeping.unforget(new)
    keeping.forget(old)
    assert keeping.plan(trust_clock=True).points == ((old,) if goes else ())


def test_a_clock_that_is_trusted_takes_nothing_from_the_grace_either(keeping):
    """What a writer of another year forgot then counts from what was written before it in the right one."""
    old, new = keeping.back_up({0: "a"}), keeping.back_up({0: "b"}, full=True)
    forgotten_at(keeping, FUTURE, new)
    forgotten_at(keeping, LONG_AGO, old)
    keeping.now += 13 * DAY
    assert keeping.prune(days=14, trust_clock=True).points == ()
    keeping.now += 2 * DAY
    assert keeping.prune(days=14, trust_clock=True).points == (old,), "nobody can tell how old the other is"
    keeping.require_sound()


def test_a_point_called_back_and_forgotten_anew_after_the_plan_has_its_grace_anew(keeping):
    slot = keeping.back_up({0: "a"})
    keeping.back_up({0: "b"}, full=True)
    keeping.forget(slot)
    keeping.now += 15 * DAY
    plan = keeping.plan(days=14)
    assert plan.points == (slot,)
    keeping.unforget(slot)
    keeping.forget(slot)
    assert carry_out(plan, process=SELF).points == ()
    assert slot in keeping.media.view().forgotten
    keeping.require_sound()


def test_a_plan_changes_nothing(keeping):
    keeping.forget(keeping.back_up({0: "a"}))
    keeping.back_up({0: "b"}, full=True)
    before, head = keeping.objects(), keeping.media.view().head
    plan = keeping.plan()
    assert (plan.objects, plan.points) == (3, (0,))
    assert (
        plan.size
        == sum((keeping.folder / name).stat().st_size for name in before if "run-1/" in name)
        - (keeping.folder / "runs/run-1/intent.json").stat().st_size
    )
    assert (keeping.objects(), keeping.media.view().head) == (before, head)


def test_a_point_in_the_middle_can_go_and_its_neighbours_stay(keeping):
    keeping.back_up({at: ("a", at) for at in range(20)})
    middle = keeping.back_up({3: "x"})
    keeping.back_up({3: "y", 4: None})
    keeping.forget(middle)
    keeping.prune()
    assert middle not in keeping.media.view().points
    keeping.require_sound()


def test_pinned_points_are_never_given_up(keeping):
    slot = keeping.back_up({0: "a"})
    keeping.forget(slot)
    keeping.pin(slot)
    keeping.prune()
    assert slot in keeping.media.view().points
    keeping.require_sound()


def test_a_point_pinned_after_the_plan_stays(keeping):
    slot = keeping.back_up({0: "a"})
    keeping.forget(slot)
    plan = keeping.plan()
    keeping.pin(slot)
    assert carry_out(plan, process=SELF).points == ()
    keeping.require_sound()


def test_a_point_called_back_after_the_plan_stays(keeping):
    slot = keeping.back_up({0: "a"})
    keeping.back_up({0: "b"}, full=True)
    keeping.forget(slot)
    plan = keeping.plan()
    keeping.unforget(slot)
    assert carry_out(plan, process=SELF).points == ()
    keeping.require_sound()


def test_a_point_that_was_given_up_cannot_be_called_back(keeping):
    slot = keeping.back_up({0: "a"})
    keeping.forget(slot)
    keeping.prune()
    with pytest.raises(Exception, match="cannot be called back"):
        keeping.unforget(slot)


class TestOrphans:
    def test_of_a_run_that_may_be_at_work_nothing_goes(self, keeping):
        run = keeping.begin()
        entry, holds = keeping.written(run, {0: "a"})
        plan = keeping.plan()
        assert (plan.objects, plan.unknown) == (0, (run,))
        carry_out(plan, process=SELF)
        keeping.held[keeping.media.append(entry, run=run)] = holds
        keeping.require_sound()

    def test_of_a_run_whose_process_has_ended_they_go_and_it_is_fenced(self, keeping):
        run = keeping.begin(process=GONE)
        entry, _ = keeping.written(run, {0: "a"})
        report = keeping.prune()
        assert (report.objects, report.deleted.objects) == (2, 2)
        assert keeping.objects() == {f"runs/{run}/intent.json"}
        with pytest.raises(RunStopped):
            keeping.media.append(entry, run=run)

    def test_of_an_old_run_they_go_with_its_intent(self, keeping):
        run = keeping.begin()
        keeping.written(run, {0: "a"})
        keeping.now += 2 * DAY
        assert keeping.prune().deleted.objects == 3
        assert keeping.objects() == set()

    def test_of_an_old_run_that_gives_signs_of_life_nothing_goes(self, keeping):
        run = keeping.begin()
        entry, holds = keeping.written(run, {0: "a"})
        keeping.now += 2 * DAY
        give(keeping.media, Sign(run=run, number=0, at=keeping.now - SILENT_AFTER, every_seconds=300))
        assert (keeping.prune().objects, keeping.plan().unknown) == (0, (run,))
        keeping.held[keeping.media.append(entry, run=run)] = holds
        keeping.require_sound()

    @pytest.mark.parametrize("age", [1.1 * SILENT_AFTER, -1.1 * SILENT_AFTER])
    def test_signs_that_are_old_or_far_ahead_of_the_clock_keep_nothing(self, keeping, age):
        run = keeping.begin()
        keeping.written(run, {0: "a"})
        keeping.now += 2 * DAY
        give(keeping.media, Sign(run=run, number=0, at=keeping.now - age, every_seconds=300))
        assert keeping.prune().deleted.objects >= 3
        assert run in keeping.media.view().fenced

    @pytest.mark.parametrize("readable", [True, False], ids=["older ones can be read", "none can"])
    def test_whose_newest_sign_cannot_be_read_is_not_dead_until_the_log_knows_it(self, keeping, readable):
        run = keeping.begin()
        entry, holds = keeping.written(run, {0: "a"})
        keeping.now += 2 * DAY
        if readable:
            old = keeping.now - 2 * SILENT_AFTER
            give(keeping.media, Sign(run=run, number=0, at=old, every_seconds=300))
        keeping.media.store.create(layout.sign(run, 1), [b"spoilt"])
        assert (keeping.prune().objects, keeping.plan().unknown) == (0, (run,))
        late = keeping.media.append(entry, run=run)
        keeping.held[late] = holds
        keeping.require_sound()
        lost = keeping.begin()
        keeping.written(lost, {1: "b"})
        keeping.media.store.create(layout.sign(lost, 0), [b"spoilt"])
        keeping.now += 2 * DAY
        assert keeping.plan().unknown == (lost,)
        keeping.media.append(DoomEntry(runs=(lost,), reason="swept"))
        assert keeping.prune().deleted.objects >= 3
        assert not [name for name in keeping.objects() if f"/{lost}/" in name]
        keeping.require_sound()

    def test_of_a_run_without_an_intent_nothing_goes(self, keeping):
        run = keeping.begin()
        keeping.written(run, {0: "a"})
        (keeping.folder / f"runs/{run}/intent.json").unlink()
        keeping.now += 99 * DAY
        assert keeping.plan().unknown == (run,)
        assert keeping.prune().objects == 0

    def test_spoilt_intents_keep_what_is_theirs_and_stop_no_prune(self, keeping):
        keeping.forget(keeping.back_up({0: "a"}))
        keeping.back_up({0: "b"}, full=True)
        run = keeping.begin(process=GONE)
        entry, holds = keeping.written(run, {0: "c"})
        dead = keeping.begin(process=GONE)
        keeping.written(dead, {0: "d"})
        for spoilt in ("run-1", run):
            flip_bit(keeping.folder / f"runs/{spoilt}/intent.json", 99)
        open_run = {name for name in keeping.objects() if f"/{run}/" in name}
        keeping.now += 99 * DAY
        report = keeping.prune()
        assert (report.points, report.is_complete) == ((0,), True)
        assert keeping.plan().unknown == (run,)
        assert keeping.objects() >= {"runs/run-1/intent.json", *open_run}
        assert not [name for name in keeping.objects() if f"/{dead}/" in name]
        # Whole again, it commits as if nothing had been.
        flip_bit(keeping.folder / f"runs/{run}/intent.json", 99)
        keeping.held[keeping.media.append(entry, run=run)] = holds
        keeping.require_sound()

    def test_a_run_that_commits_between_plan_and_doom_keeps_everything(self, keeping):
        run = keeping.begin()
        entry, holds = keeping.written(run, {0: "a"})
        keeping.now += 2 * DAY
        plan = keeping.plan()
        assert plan.dead == (run,)
        keeping.held[keeping.media.append(entry, run=run)] = holds
        assert carry_out(plan, process=SELF).deleted.objects == 1, "its intent, which is old"
        keeping.require_sound()

    def test_what_is_not_of_the_format_is_never_touched(self, keeping):
        run = keeping.begin(process=GONE)
        keeping.written(run, {0: "a"})
        strangers = [f"runs/{run}/notes.txt", f"runs/{run}/packs/mine.pack", "runs/readme", "precious.pack"]
        for name in strangers:
            path = keeping.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("precious")
        keeping.prune()
        assert all((keeping.folder / name).read_text() == "precious" for name in strangers)


class TestAWriterBeside:
    """A writer builds on a point that is given up while it reads."""

    @pytest.fixture
    def old(self, keeping):
        return keeping.back_up({at: ("a", at) for at in range(8)})

    def test_that_commits_before_the_doom_keeps_what_it_builds_on(self, keeping, old):
        run = keeping.begin()
        entry, holds = keeping.written(run, {0: "b"})
        keeping.forget(old)
        plan = keeping.plan()
        keeping.held[keeping.media.append(entry, run=run)] = holds
        carry_out(plan, process=SELF)
        assert old not in keeping.media.view().points
        keeping.require_sound()

    @pytest.mark.parametrize("delta", [{0: "b"}, {}], ids=["changed", "unchanged"])
    def test_that_commits_after_the_doom_is_told_to_read_again(self, keeping, old, delta):
        run = keeping.begin()
        entry, _ = keeping.written(run, delta)
        assert not keeping.media.must_be_read_again(entry.point.disks[0])
        keeping.forget(old)
        keeping.prune()
        with pytest.raises(ObjectsDoomed):
            keeping.media.append(entry, run=run)
        assert keeping.media.must_be_read_again(entry.point.disks[0])
        again, holds = keeping.written(run, {at: ("c", at) for at in range(8)})
        assert not keeping.media.must_be_read_again(again.point.disks[0])
        keeping.held[keeping.media.append(again, run=run)] = holds
        keeping.require_sound()

    def test_that_commits_between_doom_and_deletion_is_told_as_well(self, keeping, old):
        run = keeping.begin()
        entry, _ = keeping.written(run, {0: "b"})
        keeping.forget(old)
        told = []

        def commit_first(_number, method, _name):
            if method == "delete" and not told:
                told.append(True)
                with pytest.raises(ObjectsDoomed):
                    keeping.media.append(entry, run=run)

        keeping.prune(store=FaultyStore(FolderStore(keeping.folder), commit_first))
        assert told


class TestNothingIsDeleted:
    @pytest.fixture
    def media_with_garbage(self, keeping):
        keeping.forget(keeping.back_up({0: "a"}))
        keeping.back_up({0: "b", 1: "c"}, full=True)
        return keeping

    def require_refused(self, keeping, error, match, **how):
        before = keeping.objects()
        with pytest.raises(error, match=match):
            keeping.prune(**how)
        assert keeping.objects() == before

    def lose_record(self, keeping):
        """What the index could be made anew from."""
        for ref in keeping.media.view().points[2].point.records:
            (keeping.folder / ref.name).unlink()

    def test_if_an_index_that_is_needed_is_damaged(self, media_with_garbage):
        keeping = media_with_garbage
        self.lose_record(keeping)
        flip_bit(next((keeping.folder / "runs/run-2/index").iterdir()), 999)
        self.require_refused(keeping, MediaDamaged, "digest")

    def test_if_an_index_that_is_needed_is_missing(self, media_with_garbage):
        keeping = media_with_garbage
        self.lose_record(keeping)
        next((keeping.folder / "runs/run-2/index").iterdir()).unlink()
        self.require_refused(keeping, MediaDamaged, "missing")

    def test_if_the_log_has_a_hole(self, media_with_garbage):
        keeping = media_with_garbage
        (keeping.folder / "log/000000000001").unlink()
        self.require_refused(keeping, MediaDamaged, "lost")

    def test_if_a_newer_version_wrote_to_the_log(self, media_with_garbage):
        keeping = media_with_garbage
        path = keeping.folder / f"log/{keeping.media.view().head - 1:012}"
        fields = json.loads(path.read_bytes())
        del fields["sha256"]
        fields["body"] = {"type": "prophecy"}
        path.write_bytes(proven(fields))
        self.require_refused(keeping, MediaUnusable, "newer version")

    def test_if_the_doom_entry_finds_no_space(self, media_with_garbage):
        """F28."""
        keeping = media_with_garbage
        full = MediaUnusable("the file system is full")

        def no_space(_number, method, name):
            return (Moment.BEFORE, full) if method == "create" and name.startswith("log/") else None

        store = FaultyStore(FolderStore(keeping.folder), no_space)
        self.require_refused(keeping, MediaUnusable, "full", store=store)
        assert not [call for call in store.calls if call[0] == "delete"]

    def test_if_the_clock_is_behind_the_log(self, media_with_garbage):
        keeping = media_with_garbage
        keeping.now -= 0.01 * DAY
        self.require_refused(keeping, BadRequest, "set the clock")
        keeping.prune(trust_clock=True)

    def test_if_the_log_doomed_what_a_point_needs(self, media_with_garbage):
        keeping = media_with_garbage
        needed = str(next((keeping.folder / "runs/run-2/packs").iterdir()).relative_to(keeping.folder))
        keeping.media.append(DoomEntry(objects=(needed,), reason="a bug"))
        self.require_refused(keeping, MediaDamaged, "contradicts itself")


def test_what_is_not_below_runs_is_not_deleted_though_the_log_dooms_it(keeping):
    """Hostile or mistaken: the log, the keys and the media's description are nobody's to doom."""
    keeping.back_up({0: "a"})
    others = (layout.MEDIA, layout.slot(0), layout.key(0), layout.checkpoint(0), layout.sign("run-1", 0))
    dooms = (*others, layout.intent("run-1"))
    keeping.media.append_planned(lambda _: DoomEntry(objects=dooms, reason="a bug"))
    assert doomed_now(keeping.media.view(), dooms, ()) == [layout.intent("run-1")]


class TestListings:
    """F46: a listing may miss or repeat names. It may cost space, never data."""

    class Listing(FaultyStore):
        def __init__(self, store, change):
            super().__init__(store, lambda *_: None)
            self._change = change

        def names(self, prefix, *, after=""):
            return iter(self._change(list(super().names(prefix, after=after))))

    @pytest.mark.parametrize(
        "change",
        [lambda names: [], lambda names: names[::2], lambda names: names[::-1] * 2],
        ids=["empty", "half", "twice"],
    )
    def test_that_lie_delete_nothing_that_is_needed(self, keeping, change):
        keeping.forget(keeping.back_up({0: "a"}))
        keeping.back_up({0: "b", 1: "c"}, full=True)
        orphan = keeping.begin(process=GONE)
        keeping.written(orphan, {0: "x"})
        keeping.prune(store=self.Listing(FolderStore(keeping.folder), change))
        keeping.require_sound()
        keeping.prune()
        keeping.require_sound()
        assert not [name for name in keeping.objects() if "/packs/" in name and "run-2" not in name]


def test_what_a_store_refuses_to_delete_is_not_yet_deleted(keeping):
    """F51."""
    keeping.forget(keeping.back_up({0: "a"}))
    keeping.back_up({0: "b"}, full=True)
    locked = DeleteRefused("kept by a policy until June")

    def refuse(_number, method, name):
        return (Moment.BEFORE, locked) if method == "delete" and name.endswith(".pack") else None

    report = keeping.prune(store=FaultyStore(FolderStore(keeping.folder), refuse))
    assert (report.deleted.refused, report.deleted.objects) == (2, 1)
    assert "policy" in report.deleted.reason
    assert keeping.plan().doomed == 2
    assert keeping.prune().deleted.objects == 2


def test_two_prunes_of_one_plan_do_the_work_once(keeping):
    """F43: whoever comes second finds that it is done."""
    keeping.forget(keeping.back_up({0: "a"}))
    keeping.back_up({at: ("b", at) for at in range(9)}, full=True)
    keeping.back_up({at: ("c", at) for at in range(1, 9)})
    plans = [keeping.plan(folder=name) for name in ("one", "two")]
    first, second = (carry_out(plan, process=SELF) for plan in plans)
    assert (first.objects, second.objects) == (3, 0)
    assert (first.points, second.points) == ((0,), ())
    keeping.require_sound()


def test_many_objects_take_several_entries(keeping, monkeypatch):
    monkeypatch.setattr(doom, "MAX_NAMES", 3)
    for seed in range(4):
        keeping.forget(keeping.back_up({0: seed}, full=True))
    report = keeping.prune()
    assert (report.entries, report.objects, report.deleted.objects) == (4, 12, 12)
    assert not keeping.media.view().points


class TestRecords:
    """What a point says is stored once more, in packs that no row leads to."""

    def records(self, keeping, run):
        mine = {name for name in keeping.objects() if name.startswith(f"runs/{run}/packs/")}
        return mine - keeping.packs().keys()

    def test_of_points_that_stay_are_kept(self, keeping):
        keeping.back_up({0: "a"})
        keeping.prune()
        assert len(self.records(keeping, "run-1")) == 1

    def test_of_a_point_that_is_gone_are_kept_while_others_need_its_index(self, keeping):
        old = keeping.back_up({at: ("a", at) for at in range(9)})
        new = keeping.back_up({0: "b"})
        assert len(keeping.media.view().points[new].point.disks[0].indexes) == 2
        keeping.forget(old)
        for _ in range(2):
            keeping.prune(threshold=0.0)
            assert len(self.records(keeping, "run-1")) == 1
        keeping.back_up({0: "c"}, full=True)
        keeping.forget(new)
        keeping.prune(threshold=0.0)
        assert self.records(keeping, "run-1") == self.records(keeping, "run-2") == set()

    @pytest.mark.parametrize("bit", [65, 81])
    def test_a_pack_whose_header_has_changed_stops_no_prune(self, keeping, bit):
        """Its version or flags may be as a newer version has them; its checksum says that they are not."""
        old, pack = self.partly_needed(keeping)
        flip_bit(keeping.folder / pack, bit)
        assert keeping.prune(threshold=0.0).points == (old,)
        assert pack not in keeping.objects()
        keeping.require_sound()

    def test_a_pack_of_a_newer_version_stays_and_stops_none(self, keeping):
        old, pack = self.partly_needed(keeping)
        path = keeping.folder / pack
        path.write_bytes(of_a_newer_version(path.read_bytes()))
        assert keeping.prune(threshold=0.0).points == (old,)
        assert path.exists()

    def partly_needed(self, keeping):
        """A point to give up, and its record: nobody needs that but for an index that others need."""
        old = keeping.back_up({at: ("a", at) for at in range(9)})
        keeping.back_up({0: "b"})
        keeping.forget(old)
        (record,) = self.records(keeping, "run-1")
        return old, record


def of_a_newer_version(data):
    """A pack that says so, and proves it."""
    header = data[:8] + b"\x02" + data[9:HEADER_SIZE]
    footer = PackFooter.decode(data[-FOOTER_SIZE:], len(data), "a pack", sealed=False)
    table = data[footer.table_offset : -FOOTER_SIZE]
    proof = crc32c(table, crc32c(header)).to_bytes(4, "little")
    return header + data[HEADER_SIZE:-12] + proof + data[-8:]


def test_samples_of_digests_may_be_doomed_while_points_name_them(tmp_path):
    """A run under way builds on a point that is pruned, and names its samples when it commits."""
    held = small_media.grown_media(tmp_path / "media", tmp_path)
    media = Media.open(str(tmp_path / "media"), write=True)
    backups = (backup for made in media.view().points.values() for backup in made.point.disks)
    name = next(ref.name for backup in backups for ref in backup.digests)
    media.append(DoomEntry(objects=(name,), reason="it is a cache"))
    small_media.prune(media)
    assert not (tmp_path / "media" / name).exists()
    small_media.require_all_points(media, held)


@pytest.mark.parametrize("part", range(4))
def test_another_prune_may_give_points_up_at_any_call_of_this_one(tmp_path, part):
    """Also between the view of the log and the index that it names."""
    (tmp_path / "base").mkdir()
    base = Keeping(tmp_path / "base")
    base.back_up({at: ("a", at) for at in range(40)})
    base.back_up({at: ("b", at) for at in range(20)})
    base.back_up({at: ("c", at) for at in range(10)})
    base.back_up({0: "other"}, disk="data")
    base.forget(1)
    first = Keeping.copied(base)
    store = FaultyStore(FolderStore(first.folder), lambda *_: None)
    carry_out(first.plan(store=store, threshold=0.9), process=SELF)
    called = len(store.calls)
    for call in range(part, called, 4):
        keeping = Keeping.copied(base)
        told = []

        def prune_beside(number, _method, _name, keeping=keeping, call=call, told=told):
            if number >= call and not told:
                told.append(True)
                keeping.forget(0, 2)
                keeping.prune(folder="other", threshold=1.0)

        faulty = FaultyStore(FolderStore(keeping.folder), prune_beside)
        with suppress(MediaConflict):
            carry_out(keeping.plan(store=faulty, threshold=0.9), process=SELF)
        assert told
        keeping.require_sound()
        assert verify(keeping.media, Depth.BYTES, scratch=keeping.scratch, date=NOW.date()).is_sound


@pytest.mark.parametrize("depth", [Depth.BYTES, Depth.RESTORE])
def test_points_may_be_given_up_at_any_call_of_a_verify(tmp_path, depth):
    (tmp_path / "base").mkdir()
    base = Keeping(tmp_path / "base")
    base.back_up({at: ("a", at) for at in range(20)})
    base.back_up({at: ("b", at) for at in range(4)})
    base.back_up({0: "other"}, disk="data")
    base.back_up({0: "c"}, full=True)

    def look(keeping, script):
        media = keeping.opened(FaultyStore(FolderStore(keeping.folder), script))
        report = verify(media, depth, scratch=keeping.scratch, date=NOW.date(), threads=1)
        return len(media._below.calls), report

    for call in range(look(Keeping.copied(base), lambda *_: None)[0]):
        keeping, told = Keeping.copied(base), []

        def prune_beside(number, _method, _name, keeping=keeping, call=call, told=told):
            if number >= call and not told:
                told.append(True)
                keeping.forget(0, 1)
                keeping.prune(folder="other", threshold=1.0)

        _, report = look(keeping, prune_beside)
        assert told
        assert report.is_sound, f"call {call}: {report.text()}"


class Compared(int):
    """A slot that counts how often it is compared with another."""

    times = 0

    def __eq__(self, other):
        Compared.times += 1
        return super().__eq__(other)

    __hash__ = int.__hash__


def test_which_points_go_is_not_looked_up_among_all_that_go(keeping, monkeypatch):
    """For each point that stays, and for each that was forgotten: that would be the square of a long log."""
    counted = []
    for more in (4, 12):
        for seed in range(more):
            keeping.back_up({0: ("more", seed)}, full=True)
        slots = sorted(keeping.media.view().points)[:-1]
        keeping.forget(*[slot for slot in slots if slot not in keeping.media.view().forgotten])
        keeping.now += 30 * DAY
        view = keeping.media.view()
        forgotten = {Compared(slot): time for slot, time in view.forgotten.items()}
        points = {Compared(slot): made for slot, made in view.points.items()}
        seen = replace(view, forgotten=forgotten, points=points)
        media = keeping.opened()
        monkeypatch.setattr(media, "read_anew", lambda media=media, **_: media)
        monkeypatch.setattr(media, "view", lambda seen=seen: seen)
        Compared.times = 0
        (scratch := keeping.scratch / str(more)).mkdir()
        found = plan_prune(media, now=keeping.now, scratch=scratch, grace=DAY, trust_clock=True)
        assert len(found.points) == len(forgotten)
        counted.append(Compared.times / len(points))
    assert counted[1] <= 1.5 * counted[0]
