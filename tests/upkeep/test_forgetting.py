"""Forgetting: what a plan says, what it refuses, and what becomes of it when the log goes on meanwhile."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media.making import NOW, a_disk, a_snapshot
from tests.upkeep.keeping import DAY, Keeping
from vsa.errors import BadRequest, MediaConflict
from vsa.media.entries import Damaged, DamageEntry, DoubtEntry, Harm, JobEntry, PointEntry, Result
from vsa.model import Method
from vsa.retention import MadePoint, Retention, select
from vsa.upkeep.forgetting import (
    Decision,
    Judged,
    Limits,
    _shares,
    by_policy,
    forget,
    named,
    pin,
    plan_forgetting,
    unforget,
)

ALL = Limits(override_share=True)
TRUSTED = Limits(override_share=True, trust_clock=True)
HOUR, MINUTE = dt.timedelta(hours=1), dt.timedelta(minutes=1)
NEVER = dt.datetime.min.replace(tzinfo=dt.UTC)
STUCK = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
RETENTIONS = st.builds(
    Retention, daily=st.integers(0, 4), weekly=st.integers(0, 2), monthly=st.integers(0, 2)
)


@pytest.fixture
def keeping(tmp_path):
    return Keeping(tmp_path)


def plan(keeping, policy=None, *, slots=(), limits=ALL):
    request = named(slots) if slots else by_policy(lambda made: policy)
    return plan_forgetting(keeping.media, request, now=keeping.now, limits=limits)


def going(found):
    return [item.slot for item in found.decision.going]


LAST = Retention(keep_last=1)
OS = a_disk("os").key


def test_a_plan_says_why_each_point_goes_or_stays_and_changes_nothing(keeping):
    slots = [keeping.back_up({0: seed}, full=True) for seed in range(3)]
    keeping.pin(slots[0])
    head = keeping.media.view().head
    found = plan(keeping, Retention(keep_last=1))
    assert [(item.slot, item.reason) for item in found.decision.going] == [(slots[1], "no rule keeps it")]
    assert {item.slot: item.reason for item in found.decision.staying} == {
        slots[0]: "pinned",
        slots[2]: "the newest sound point of a disk, one of the last 1",
    }
    assert keeping.media.view().head == head


def test_what_it_says_is_freed_is_what_a_prune_frees(keeping):
    keeping.back_up({at: ("a", at) for at in range(9)})
    keeping.back_up({at: ("b", at) for at in range(5)})
    keeping.back_up({at: ("c", at) for at in range(9)}, full=True)
    found = plan(keeping, LAST)
    forget(keeping.media, found, now=keeping.now)
    report = keeping.prune(threshold=0.0)
    assert report.deleted.size == found.freed > 14 * 4096


def test_what_a_pinned_point_needs_is_not_freed_though_it_was_forgotten(keeping):
    old, new = keeping.back_up({at: ("a", at) for at in range(9)}), keeping.back_up({0: "b"})
    keeping.back_up({0: "other"}, full=True)
    keeping.forget(old)
    keeping.pin(old)
    found = plan(keeping, slots=(new,))
    assert 0 < found.freed < 4 * 4096
    forget(keeping.media, found, now=keeping.now)
    assert keeping.prune(threshold=0.0).deleted.size == found.freed


def test_records_of_indexes_that_stay_are_not_freed(keeping):
    """Of a run whose index is needed the record stays, also when its own point is gone."""
    keeping.back_up({at: ("a", at) for at in range(60)})
    keeping.back_up({at: ("b", at) for at in range(2)})
    found = plan(keeping, LAST)
    forget(keeping.media, found, now=keeping.now)
    assert keeping.prune(threshold=0.0).deleted.size == found.freed


def test_what_it_says_is_freed_is_the_least_of_what_a_prune_says(keeping):
    """Which also says what rewriting packs gives, about."""
    keeping.back_up({at: ("a", at) for at in range(60)})
    keeping.back_up({at: ("b", at) for at in range(50)})
    found = plan(keeping, LAST)
    forget(keeping.media, found, now=keeping.now)
    planned = keeping.plan()
    assert planned.repack.packs
    assert found.freed <= planned.size < planned.freed
    before = sum(path.stat().st_size for path in keeping.folder.rglob("runs/**/*") if path.is_file())
    keeping.prune()
    after = sum(path.stat().st_size for path in keeping.folder.rglob("runs/**/*") if path.is_file())
    assert found.freed <= planned.freed * 0.8 <= before - after <= planned.freed


def test_extents_that_a_point_shares_with_others_are_not_freed(keeping):
    keeping.back_up({at: ("a", at) for at in range(9)})
    keeping.back_up({0: "b"})
    found = plan(keeping, LAST)
    assert going(found) == [0]
    assert found.freed < 4096


def test_forgetting_twice_forgets_nothing_more(keeping):
    for seed in range(4):
        keeping.back_up({0: seed})
    forget(keeping.media, plan(keeping, LAST), now=keeping.now)
    again = plan(keeping, LAST)
    assert going(again) == []
    assert forget(keeping.media, again, now=keeping.now) is None


def two_disks(keeping):
    """A point of one VM with a system disk and a data disk."""
    run = keeping.begin()
    entries = [keeping.written(run, {0: (run, disk)}, disk=disk, full=True)[0] for disk in ("os", "data")]
    disks = tuple(entry.point.disks[0] for entry in entries)
    return keeping.media.append(
        PointEntry(point=entries[0].point.model_copy(update={"disks": disks})), run=run
    )


def incomplete(keeping):
    """A point of the same VM without the data disk, which failed."""
    run = keeping.begin()
    entry, _ = keeping.written(run, {0: run}, full=True)
    point = entry.point.model_copy(update={"incomplete": True})
    return keeping.media.append(PointEntry(point=point), run=run)


def spoil(keeping, how, *slots):
    """Put the system disk of the points in doubt, or harm it."""
    if how == "doubt":
        keeping.media.append(DoubtEntry(points=slots, disk_key=OS, reason="audit"))
        return
    pack = next(name for name in keeping.objects() if name.endswith(".pack"))
    harm = Harm(points=slots, disk_key=OS, ranges=((0, 4096),))
    keeping.media.append(DamageEntry(objects=(Damaged(name=pack),), harm=(harm,), reason="verify"))


class TestNeverGoesByPolicy:
    def last_two(self, keeping):
        return keeping.back_up({0: "a"}), keeping.back_up({0: "b"})

    def require_both_stay(self, keeping):
        assert going(plan(keeping, LAST)) == []

    def test_the_newest_point_that_is_not_doubtful(self, keeping):
        _, newest = self.last_two(keeping)
        keeping.media.append(DoubtEntry(points=(newest,), disk_key=OS, reason="audit"))
        self.require_both_stay(keeping)

    def test_the_newest_point_that_no_damage_has_harmed(self, keeping):
        _, newest = self.last_two(keeping)
        harm = Harm(points=(newest,), disk_key=OS, ranges=((0, 4096),))
        pack = next(name for name in keeping.objects() if name.endswith(".pack"))
        keeping.media.append(DamageEntry(objects=(Damaged(name=pack),), harm=(harm,), reason="verify"))
        self.require_both_stay(keeping)

    def test_the_newest_point_of_a_disk_that_an_incomplete_one_lacks(self, keeping):
        first = two_disks(keeping)
        incomplete(keeping)
        assert first not in going(plan(keeping, LAST))

    @pytest.mark.parametrize("bad", ["doubt", "harm"])
    def test_the_last_point_of_a_disk_whose_neighbour_is_bad(self, keeping, bad):
        """F49: the system disk is bad in both points that have the data disk, which is sound in the first and
        was detached later."""
        first, second = two_disks(keeping), two_disks(keeping)
        spoil(keeping, bad, first, second)
        doubt = DoubtEntry(points=(second,), disk_key=a_disk("data").key, reason="audit")
        keeping.media.append(doubt)
        keeping.back_up({0: "later"}, full=True)
        found = plan(keeping, LAST)
        assert going(found) == [second]
        reasons = {item.slot: item.reason for item in found.decision.staying}
        assert reasons[first] == "the newest sound point of a disk"

    def test_the_newest_point_of_a_disk_that_has_no_sound_one(self, keeping):
        both = [two_disks(keeping), two_disks(keeping)]
        for key in (OS, a_disk("data").key):
            keeping.media.append(DoubtEntry(points=tuple(both), disk_key=key, reason="audit"))
        keeping.back_up({0: "later"}, full=True)
        found = plan(keeping, LAST)
        assert going(found) == both[:1]
        reasons = {item.slot: item.reason for item in found.decision.staying}
        assert reasons[both[1]] == "the newest point of a disk that has no sound one"

    def test_the_newest_point_of_a_disk_that_its_vm_has_lost(self, keeping):
        """One VM, whose second disk is only in its first point."""
        keeping.back_up({0: "a"}, disk="data")
        run = keeping.begin()
        entry, _ = keeping.written(run, {0: "b"}, disk="os")
        vm = keeping.media.view().points[0].point.vm
        keeping.media.append(PointEntry(point=entry.point.model_copy(update={"vm": vm})), run=run)
        self.require_both_stay(keeping)

    def test_the_point_whose_base_the_next_comparison_starts_from(self, keeping):
        run = keeping.begin()
        entry, _ = keeping.written(run, {0: "a"})
        base = a_snapshot(entry.point.disks[0].disk)
        keeping.media.append(PointEntry(point=entry.point.model_copy(update={"bases": (base,)})), run=run)
        run = keeping.begin()
        keeping.media.append(keeping.written(run, {1: "by crc"}, full=True)[0], run=run)
        self.require_both_stay(keeping)

    def test_a_point_of_a_subclient_without_retention(self, keeping):
        self.last_two(keeping)
        assert going(plan(keeping, None)) == []


class TestWrongClocks:
    """F48: of writers; under the policies of whoever forgets, whose clock is right unless a test says so."""

    def taken(self, keeping, at, *, clock=None, disk="os"):
        """A point of snapshots that Azure took at a time, by a writer with a clock of its own."""
        run = keeping.begin()
        point = keeping.written(run, {0: run}, disk=disk, full=True)[0].point
        snapshot = point.disks[0].snapshot.model_copy(update={"taken_at": at})
        disks = (point.disks[0].model_copy(update={"snapshot": snapshot}),)
        now, keeping.now = keeping.now, clock or at
        slot = keeping.media.append(PointEntry(point=point.model_copy(update={"disks": disks})), run=run)
        keeping.now = now
        return slot

    def test_days_are_told_apart_though_one_writer_is_years_behind(self, keeping):
        days = [NOW + day * DAY for day in range(4)]
        behind = []
        for day in days:
            self.taken(keeping, day, disk="data")
            behind.append(self.taken(keeping, day, clock=NOW.replace(year=2001)))
        keeping.now = days[-1]
        found = plan(keeping, Retention(keep_last=1, daily=4))
        assert going(found) == []
        assert [item.taken_at for item in found.decision.staying if item.slot in behind] == days

    def test_a_point_of_the_future_takes_no_days_from_those_after_it(self, keeping):
        future = NOW.replace(year=2099)
        self.taken(keeping, future, clock=future)
        self.taken(keeping, NOW)
        self.taken(keeping, future, clock=future)
        later = [self.taken(keeping, NOW + day * DAY) for day in range(1, 4)]
        keeping.now = NOW + 3 * DAY
        found = plan(keeping, Retention(daily=3), limits=TRUSTED)
        assert [item.slot for item in found.decision.staying] == later

    @pytest.mark.parametrize(
        "clock",
        [
            pytest.param(lambda day: STUCK + day * MINUTE, id="back in 2020 after each boot"),
            pytest.param(lambda day: STUCK if day < 4 else NOW + day * DAY, id="set on day 4"),
            pytest.param(lambda day: NOW + day * DAY if day < 4 else STUCK, id="lost on day 4"),
            pytest.param(
                lambda day: NOW + (day - 3 * (day % 2)) * DAY, id="of two writers, one 3 days behind"
            ),
            pytest.param(lambda day: NOW + (day + 400) * DAY, id="a year ahead"),
            pytest.param(
                lambda day: NOW + (day + 3 * (day % 2)) * DAY, id="of two writers, one 3 days ahead"
            ),
        ],
    )
    def test_each_day_keeps_its_point_whatever_its_writer_takes_for_the_time(self, keeping, clock):
        """Azure's time of the snapshots is right; retention is applied each night."""
        for day in range(8):
            self.taken(keeping, NOW + day * DAY, clock=clock(day))
            keeping.now = NOW + day * DAY + 12 * HOUR
            found = plan(keeping, Retention(keep_last=1, daily=8), limits=TRUSTED)
            forget(keeping.media, found, now=keeping.now)
        assert len(keeping.media.view().live) == 8

    def test_a_clock_that_is_behind_needs_nobody_who_says_that_it_is(self, keeping):
        slots = [self.taken(keeping, NOW + day * DAY, clock=STUCK + day * MINUTE) for day in range(4)]
        keeping.now = NOW + 4 * DAY
        found = plan(keeping, Retention(daily=2), limits=Limits())
        assert found.decision.refusals == ()
        reasons = {item.slot: item.reason for item in found.decision.staying}
        assert going(found) == [slots[1]]
        assert reasons[slots[0]] == "first of its day, by the log's times", "kept too long rather than lost"
        assert [reasons[slot] for slot in slots[2:3]] == ["first of its day"]

    @settings(deadline=None, max_examples=15)
    @given(st.lists(st.tuples(st.integers(0, 60), st.integers(-90, 90)), min_size=1, max_size=6), RETENTIONS)
    def test_no_point_goes_for_the_clock_of_a_writer(self, tmp_path_factory, said, retention):
        """By what each writer's clock is wrong, in days, and the hours since the point before."""
        keeping = Keeping(tmp_path_factory.mktemp("keeping"))
        points, at = [], NOW
        for hours, wrong in said:
            at += hours * HOUR
            points.append(MadePoint(self.taken(keeping, at, clock=at + wrong * DAY), at))
        keeping.now = at
        assert not set(going(plan(keeping, retention, limits=TRUSTED))) & set(select(retention, points))

    def test_a_snapshot_younger_than_its_point_takes_no_days_from_those_after_it(self, keeping):
        """A time that no snapshot has, by a writer whose clock is right, until that time has come."""
        slots = [self.taken(keeping, NOW + 5 * DAY, clock=NOW)]
        slots += [self.taken(keeping, NOW + day * DAY) for day in range(1, 6)]
        keeping.now = NOW + 6 * DAY
        assert going(plan(keeping, Retention(daily=6), limits=Limits())) == []

    def test_a_clock_that_snapshots_alone_contradict_is_refused(self, keeping):
        """One machine writes and forgets, and its clock is years behind for both."""
        slots = [self.taken(keeping, NOW + day * DAY, clock=STUCK + day * MINUTE) for day in range(4)]
        right, keeping.now = NOW + 4 * DAY, STUCK + HOUR
        found = plan(keeping, Retention(daily=4))
        (refusal,) = found.decision.refusals
        last = (NOW + 3 * DAY).isoformat()
        assert (
            f"log/00000000000{slots[-1]} names a snapshot that was taken at {last}, but it is 2020" in refusal
        )
        with pytest.raises(BadRequest, match="set the clock"):
            forget(keeping.media, found, now=keeping.now)
        keeping.now = right
        assert forget(keeping.media, plan(keeping, Retention(daily=4)), now=right) is None

    def test_a_snapshot_of_a_time_that_is_never_to_come_is_forgotten_by_name(self, keeping):
        """In a zone in which that time lies beyond the last that can be told."""
        never = dt.datetime.max.replace(tzinfo=dt.timezone(-12 * HOUR))
        slot = self.taken(keeping, never, clock=NOW)
        self.taken(keeping, NOW)
        assert "names a snapshot that was taken at 9999-12-31" in plan(keeping, LAST).decision.refusals[0]
        forget(keeping.media, plan(keeping, slots=(slot,), limits=TRUSTED), now=keeping.now)
        assert plan(keeping, LAST).decision.refusals == ()

    def test_the_first_and_the_last_time_there_are_can_be_told_in_utc(self, keeping):
        early, late = (
            self.taken(keeping, edge.replace(tzinfo=dt.timezone(hours * HOUR)), clock=NOW)
            for edge, hours in ((dt.datetime.min, 12), (dt.datetime.max, -12))
        )
        told = {item.slot: item.taken_at for item in plan(keeping, LAST).decision.staying}
        told |= {item.slot: item.taken_at for item in plan(keeping, LAST).decision.going}
        assert told == {early: NEVER, late: dt.datetime.max.replace(tzinfo=dt.UTC)}


class TestRefused:
    def test_a_plan_that_takes_more_than_the_share_of_a_vm(self, keeping):
        for seed in range(4):
            keeping.back_up({0: seed})
        found = plan(keeping, LAST, limits=Limits())
        assert len(going(found)) == 3
        assert "3 of the 4 points of os would be forgotten, more than 50%" in found.decision.refusals[0]
        with pytest.raises(BadRequest, match="3 of the 4"):
            forget(keeping.media, found, now=keeping.now)
        assert not keeping.media.view().forgotten
        assert not plan(keeping, Retention(keep_last=2), limits=Limits()).decision.refusals

    def test_under_a_clock_that_the_log_contradicts(self, keeping):
        """F48."""
        for seed in range(2):
            keeping.back_up({0: seed})
        keeping.now -= DAY
        found = plan(keeping, LAST)
        assert "set the clock" in found.decision.refusals[0]
        with pytest.raises(BadRequest, match="set the clock"):
            forget(keeping.media, found, now=keeping.now)
        trusted = plan(keeping, LAST, limits=Limits(override_share=True, trust_clock=True))
        assert forget(keeping.media, trusted, now=keeping.now) is not None

    def test_points_that_cannot_be_forgotten_by_name(self, keeping):
        slot = keeping.back_up({0: "a"})
        with pytest.raises(BadRequest, match="holds no recovery point"):
            plan(keeping, slots=(99,))
        keeping.pin(slot)
        with pytest.raises(MediaConflict, match="pinned"):
            plan(keeping, slots=(slot,))


def test_a_point_that_is_named_goes_with_a_warning_if_it_is_the_last(keeping):
    slot = keeping.back_up({0: "a"})
    found = plan(keeping, slots=(slot,))
    assert found.decision.warnings == (f"point {slot} goes although it is the newest sound point of a disk",)
    forget(keeping.media, found, now=keeping.now)
    assert keeping.media.view().live == []


def test_a_plan_that_the_log_has_overtaken_is_not_carried_out(keeping):
    """F43: the newest sound point has become another one since."""
    old, new = keeping.back_up({0: "a"}), keeping.back_up({0: "b"})
    found = plan(keeping, LAST)
    assert going(found) == [old]
    keeping.media.append(DoubtEntry(points=(new,), disk_key=OS, reason="audit"))
    with pytest.raises(MediaConflict, match="look at a new one"):
        forget(keeping.media, found, now=keeping.now)


def test_two_policies_at_once_leave_the_last_sound_point(keeping):
    first, second = keeping.back_up({0: "a"}), keeping.back_up({0: "b"})
    by_one, by_other = plan(keeping, LAST), plan(keeping, slots=(second,))
    forget(keeping.media, by_other, now=keeping.now)
    with pytest.raises(MediaConflict):
        forget(keeping.media, by_one, now=keeping.now)
    assert [made.slot for made in keeping.media.view().live] == [first]


def test_the_token_changes_with_what_goes_alone(keeping):
    for seed in range(3):
        keeping.back_up({0: seed})
    before = plan(keeping, LAST)
    keeping.media.append(
        JobEntry(
            job="j",
            subclient="all",
            method=Method.CBT,
            started_at=keeping.now,
            ended_at=keeping.now,
            result=Result.COMPLETED,
        )
    )
    assert plan(keeping, LAST).token == before.token
    keeping.back_up({0: "more"})
    assert plan(keeping, LAST).token != before.token


def test_what_was_forgotten_or_pinned_can_be_taken_back(keeping):
    slot = keeping.back_up({0: "a"})
    forget(keeping.media, plan(keeping, slots=(slot,)), now=keeping.now)
    unforget(keeping.media, (slot,))
    pin(keeping.media, (slot,), pinned=True)
    view = keeping.media.view()
    assert ([made.slot for made in view.live], view.pinned) == ([slot], {slot})
    pin(keeping.media, (slot,), pinned=False)
    assert not keeping.media.view().pinned


@settings(deadline=None, max_examples=20)
@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(1, 3))
def test_a_disk_keeps_a_sound_point_whatever_is_doubtful(tmp_path_factory, doubtful, keep_last):
    keeping = Keeping(tmp_path_factory.mktemp("keeping"))
    slots = [keeping.back_up({0: seed}) for seed in range(len(doubtful))]
    for slot, doubt in zip(slots, doubtful, strict=True):
        if doubt:
            keeping.media.append(DoubtEntry(points=(slot,), disk_key=OS, reason="audit"))
    kept = set(slots) - set(going(plan(keeping, Retention(keep_last=keep_last))))
    sound = [slot for slot, doubt in zip(slots, doubtful, strict=True) if not doubt]
    assert set(sound[-1:]) <= kept


class Compared(str):
    """Counts how often it is compared with another."""

    times = 0

    def __eq__(self, other):
        Compared.times += 1
        return super().__eq__(other)

    __hash__ = str.__hash__


def test_what_a_plan_compares_grows_with_the_points_not_with_points_times_clients():
    counted = []
    for clients in (5, 50):
        names = [f"client-{number}" for number in range(clients)]
        points = [
            Judged(slot, Compared(name), name, NOW, "")
            for slot, name in enumerate(name for name in names * 4)
        ]
        Compared.times = 0
        found = Decision(going=tuple(points[: 3 * clients]), staying=tuple(points[3 * clients :]))
        assert len(list(_shares(found, 0.5))) == clients
        counted.append(Compared.times)
    assert counted[1] <= 10 * counted[0]
