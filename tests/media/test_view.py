"""What the log means, entry by entry."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media.making import NOW, a_disk, a_point, a_snapshot, a_vm
from vsa.media.entries import (
    ClientEntry,
    ClientState,
    Damaged,
    DamageEntry,
    DoomEntry,
    DoubtEntry,
    Entry,
    EntryBody,
    ForgetEntry,
    Harm,
    JobEntry,
    MovedIndex,
    PinEntry,
    ReleasedBase,
    RelocateEntry,
    Result,
    RotateEntry,
    SeenName,
    UnforgetEntry,
)
from vsa.media.view import WHOLE, Damage, Latest, View
from vsa.model import IndexRef, Method

DISK = a_disk()
GONE = ForgetEntry(points=(0,), reason="x")
INDEX = IndexRef(name="runs/r/index/d.parquet", size=9, sha256="0" * 64, footer=8, footer_sha256="0" * 64)


def view_of(*said: EntryBody | tuple[str, EntryBody]) -> View:
    return View(0, "").extended(numbered(said))


def numbered(said, first: int = 0):
    for slot, item in enumerate(said, first):
        run, body = item if isinstance(item, tuple) else (None, item)
        entry = Entry(
            seq=slot,
            prev="0" * 64,
            nonce="0" * 32,
            time=NOW + dt.timedelta(hours=slot),
            run=run,
            software="x",
            body=body,
        )
        yield entry, f"hash of {slot}"


def point(run: str, *bases: str, disk=DISK) -> tuple[str, EntryBody]:
    return run, a_point(disk, [INDEX], bases=[a_snapshot(disk, name) for name in bases])


def job(*released: str) -> JobEntry:
    return JobEntry(
        job="job",
        subclient="all",
        method=Method.CBT,
        started_at=NOW,
        ended_at=NOW,
        result=Result.COMPLETED,
        released=tuple(ReleasedBase(base=a_snapshot(DISK, name), reason="x") for name in released),
    )


def base_of(*said) -> str | None:
    kept = view_of(*said).base_of(DISK.key)
    return kept and f"{kept[0]}{kept[1].id}"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], None),
        ([point("r0")], None),
        ([point("r0", "a")], "0/snapshots/a"),
        ([point("r0", "a"), point("r1", "b")], "1/snapshots/b"),
        ([point("r0", "a"), point("r1")], "0/snapshots/a"),
        ([point("r0", "a"), job("a")], None),
        ([point("r0", "a"), job("b")], "0/snapshots/a"),
        ([point("r0", "a"), point("r1", "b"), job("a")], "1/snapshots/b"),
        ([point("r0", "a"), job("a"), point("r1", "a")], "2/snapshots/a"),
    ],
)
def test_the_base_is_the_one_named_last_and_not_released(said, expected):
    assert base_of(*said) == expected


def test_each_disk_has_a_base_and_a_latest_point_of_its_own():
    other = a_disk("data")
    view = view_of(point("r0", "a"), point("r1", "b", disk=other))
    assert view.latest_point_of_disk(DISK.key) == (0, point("r0", "a")[1].point.disks[0])
    assert view.latest_point_of_disk(other.key)[0] == 1
    assert {key: slot for key, (slot, _) in view.bases().items()} == {DISK.key: 0, other.key: 1}
    assert view.latest_point_of_disk("unknown") is None


def test_a_run_has_one_point_and_a_fenced_run_none():
    view = view_of(point("r0", "a"), point("r0", "b"), DoomEntry(runs=("r2",), reason="x"), point("r2", "c"))
    assert list(view.points) == [0]
    assert view.committed == {"r0": 0}
    assert view.base_of(DISK.key)[1].id == "/snapshots/a"
    assert view.fenced == {"r2"}


def test_a_fence_after_the_commit_means_nothing():
    assert view_of(point("r0"), DoomEntry(runs=("r0",), reason="x")).fenced == frozenset()


def test_a_doom_gives_up_no_point_that_is_wanted():
    """Another writer called it back after the prune had looked: its data stays, so the point does."""
    doomed = DoomEntry(points=(0, 1), reason="x")
    view = view_of(point("r0", "a"), point("r1"), ForgetEntry(points=(1,), reason="x"), doomed)
    assert (list(view.points), view.given_up, view.forgotten) == ([0], {1}, {})
    assert view.base_of(DISK.key)[0] == 0
    called_back = view_of(point("r0"), GONE, UnforgetEntry(points=(0,)), DoomEntry(points=(0,), reason="x"))
    assert (list(called_back.points), called_back.given_up) == ([0], frozenset())


def test_a_client_is_what_was_last_said_of_it():
    def seen(name: str, state: ClientState) -> ClientEntry:
        vm = a_vm("web").model_copy(update={"name": name})
        return ClientEntry(
            vm=vm,
            names=(SeenName(name=name, resource_id="/vm", first_seen=NOW, last_seen=NOW),),
            first_seen=NOW,
            last_seen=NOW,
            state=state,
        )

    view = view_of(seen("web", ClientState.PRESENT), seen("web-renamed", ClientState.GONE))
    assert [(client.vm.name, client.state) for client in view.clients.values()] == [
        ("web-renamed", ClientState.GONE)
    ]


def test_doubts_add_up():
    view = view_of(
        point("r0"),
        point("r1"),
        DoubtEntry(points=(0, 1), disk_key="d", reason="audit"),
        DoubtEntry(points=(1,), disk_key="e", reason="read error"),
    )
    assert {
        slot: [(doubt.slot, doubt.disk_key) for doubt in doubts] for slot, doubts in view.doubtful.items()
    } == {
        0: [(2, "d")],
        1: [(2, "d"), (3, "e")],
    }


def test_jobs_and_points_come_back_from_their_packed_form():
    view = view_of(job("a"), point("r1", "b"))
    assert view.jobs[0].job == job("a")
    assert view.jobs[0].time == NOW
    assert view.points[1].point == point("r1", "b")[1].point
    assert (view.points[1].run, view.points[1].time) == ("r1", NOW + dt.timedelta(hours=1))


SAID = st.one_of(
    st.builds(point, st.sampled_from(["r0", "r1", "r2"]), st.sampled_from("ab")),
    st.builds(point, st.sampled_from(["r0", "r1", "r2"])),
    st.builds(job, st.sampled_from("ab")),
    st.builds(lambda run: DoomEntry(runs=(run,), reason="x"), st.sampled_from(["r0", "r1", "r2"])),
    st.just(DoubtEntry(points=(0,), disk_key="d", reason="x")),
)


@settings(deadline=None)
@given(st.lists(SAID, max_size=8), st.integers(0, 8))
def test_folding_in_two_parts_is_folding_at_once(said, cut):
    cut = min(cut, len(said))
    half = view_of(*said[:cut])
    frozen = repr(half)
    assert half.extended(numbered(said[cut:], cut)) == view_of(*said)
    assert repr(half) == frozen


def claimed(*said: tuple[dt.datetime, EntryBody | tuple[str, EntryBody]]) -> Iterator[tuple[Entry, str]]:
    """The entries in their order, each at the time that its writer claims."""
    bodies = [body for _, body in said]
    for (time, _), (entry, digest) in zip(said, numbered(bodies), strict=True):
        yield entry.model_copy(update={"time": time}), digest


WRONG = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
FUTURE = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize("before", [job("a"), PinEntry(points=(7,)), RotateEntry(key=1), point("r1")])
def test_a_point_is_forgotten_no_earlier_than_what_the_log_said_before(before):
    later = NOW + dt.timedelta(days=3)
    view = View(0, "").extended(
        claimed((NOW, point("r0")), (later, before), (WRONG, job("b")), (WRONG, GONE))
    )
    assert view.forgotten == {0: later}
    assert view.latest == Latest(1, later)
    assert view.points[0].time == NOW and view.jobs[2].time == WRONG, (
        "what a writer said stays as it was said"
    )


def test_a_clock_that_is_ahead_counts_for_all_that_follows():
    said = [(NOW, point("r0")), (FUTURE, job("a")), (NOW, GONE)]
    assert View(0, "").extended(claimed(*said)).forgotten == {0: FUTURE}
    believed = View(0, "").extended(claimed(*said), believed_until=NOW)
    assert (believed.forgotten, believed.latest) == ({0: NOW}, Latest(0, NOW))
    own = View(0, "").extended(claimed(*said[:2], (FUTURE, GONE)), believed_until=NOW)
    assert own.forgotten == {0: FUTURE}, "nobody can tell when it was"


def test_a_point_that_is_called_back_and_forgotten_again_is_so_from_then_on():
    later = NOW + dt.timedelta(days=3)
    said = [(NOW, point("r0")), (NOW, GONE), (later, UnforgetEntry(points=(0,))), (WRONG, GONE)]
    assert View(0, "").extended(claimed(*said)).forgotten == {0: later}


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_a_time_that_has_none_in_utc_stops_nobody(text):
    view = View(0, "").extended(claimed((dt.datetime.fromisoformat(text), point("r0")), (NOW, GONE)))
    assert view.points[0].time.year == int(text[:4])
    assert view.forgotten[0] == max(NOW, view.points[0].time)


TIMES = st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC))


@settings(deadline=None)
@given(st.lists(st.tuples(TIMES, st.one_of(SAID, st.just(GONE))), max_size=8), st.integers(0, 8))
def test_however_the_clocks_go_no_grace_begins_before_an_entry_that_came_before(said, cut):
    cut = min(cut, len(said))
    entries = list(claimed(*said))
    assert View(0, "").extended(entries[:cut]).extended(entries[cut:]) == View(0, "").extended(entries)
    for at, (entry, _) in enumerate(entries, 1):
        newest = max(earlier.time for earlier, _ in entries[:at])
        if entry.body == GONE:
            assert set(View(0, "").extended(entries[:at]).forgotten.values()) <= {newest}


PACK, OTHER = "runs/r/packs/0.pack", "runs/r/packs/1.pack"


def damage(name: str, *offsets: int, harm: tuple[Harm, ...] = ()) -> DamageEntry:
    return DamageEntry(objects=(Damaged(name=name, offsets=offsets),), harm=harm, reason="a bad disk")


def healed(name: str, *offsets: int) -> tuple[str, EntryBody]:
    return "healer", RelocateEntry(healed=(Damaged(name=name, offsets=offsets),), reason="read again")


def harm(*frames: tuple[int, int], points: tuple[int, ...] = (0,)) -> Harm:
    """Extents of 100 bytes by their number, each in the frame at an offset."""
    ranges = tuple((extent * 100, extent * 100 + 100) for extent, _ in frames)
    return Harm(points=points, disk_key="d", ranges=ranges, offsets=tuple(offset for _, offset in frames))


def lost(view: View, slot: int = 0) -> list[tuple[int, int]]:
    return [item for found in view.harm_of(slot) for item in found.ranges]


def test_of_a_damaged_pack_only_frames_that_have_not_moved_harm_a_point() -> None:
    said = (point("r"), damage(PACK, 64, 164, harm=(harm((1, 64), (2, 164), (7, 164)),)))
    assert lost(view_of(*said)) == [(100, 200), (200, 300), (700, 800)]
    assert lost(view_of(*said), slot=1) == []
    after = view_of(*said, healed(PACK, 164))
    assert lost(after) == [(100, 200)] and after.healed == {PACK: frozenset({164})}
    assert lost(view_of(*said, healed(OTHER, 64, 164))) == lost(view_of(*said))
    whole = view_of(*said, healed(PACK, 164), healed(PACK, 64))
    assert lost(whole) == [] and whole.damaged == {PACK: frozenset({64, 164})}, "nothing is led there again"


def test_a_pack_that_is_damaged_as_a_whole_stays_so_but_harms_nobody_once_its_frames_have_moved() -> None:
    said = (point("r"), damage(PACK, harm=(harm((1, 64), (2, 164)),)))
    after = view_of(*said, healed(PACK, 64, 164))
    assert after.damaged == {PACK: WHOLE} and lost(after) == []
    assert lost(view_of(*said, healed(PACK, 64))) == [(200, 300)]


class Counted(tuple[Damage, ...]):
    """Counts how often it is gone through."""

    times = 0

    def __iter__(self) -> Iterator[Damage]:
        Counted.times += 1
        return super().__iter__()


def test_all_damage_is_gone_through_once_however_many_points_are_asked_about() -> None:
    said = view_of(
        point("r"), damage(PACK, 64, harm=(harm((1, 64)),)), damage(PACK, 164, harm=(harm((2, 164)),))
    )
    view = replace(said, damages=Counted(said.damages))
    Counted.times = 0
    assert [bool(lost(view, slot)) for slot in range(9)] == [True] + [False] * 8
    assert Counted.times == 1


def test_harm_by_an_index_stands_until_a_copy_takes_its_place() -> None:
    index = INDEX.name
    said = (point("r"), damage(index, harm=(Harm(points=(0,), disk_key="d", ranges=((0, 500),)),)))
    assert lost(view_of(*said, healed(PACK, 64))) == [(0, 500)]
    copied = RelocateEntry(
        indexes=(MovedIndex(name=index, ref=INDEX),), healed=(Damaged(name=index),), reason="rebuilt"
    )
    assert lost(view_of(*said, copied)) == []


def test_harm_names_a_frame_for_each_range_or_for_none() -> None:
    with pytest.raises(ValueError, match="one frame for each range"):
        Harm(points=(0,), disk_key="d", ranges=((0, 1), (2, 3)), offsets=(64,))
