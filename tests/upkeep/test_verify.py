"""What a verify finds at each depth, what it calls harmed, and what it leaves alone."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.media.faulty_store import FaultyStore
from tests.media.making import objects
from tests.restore.backups import EXTENT
from tests.upkeep.estate import (
    DATA,
    OS,
    SIZE,
    TODAY,
    Estate,
    a_full_estate,
    fresh,
    harm_in_log,
    lost_of,
)
from vsa.errors import BadRequest, MediaDamaged
from vsa.media import documents, layout
from vsa.media.entries import DoomEntry, ForgetEntry, Harm
from vsa.media.media import Media
from vsa.media.view import WHOLE
from vsa.ranges import ByteRange
from vsa.restore.disk import Format, restore_disk
from vsa.upkeep.record import damage_entries, record_damage
from vsa.upkeep.report import Depth, Finding
from vsa.upkeep.sampling import Sample
from vsa.upkeep.verify import verify


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    return a_full_estate(tmp_path)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def all_but_one(data: bytes) -> bytes:
    return data[:-1]


def a_zero_page(data: bytes) -> bytes:
    at = len(data) // 2 // 4096 * 4096
    return data[:at] + bytes(4096) + data[at + 4096 :]


def nothing(_: bytes) -> bytes:
    return b""


def gone(_: bytes) -> None:
    return None


Harming = Callable[[bytes], bytes | None]


@pytest.mark.parametrize("harming", [nothing, half, all_but_one, a_zero_page, gone])
@pytest.mark.parametrize("kind", ["runs/*/packs/*", "runs/*/index/*", "runs/*/moves/*"])
def test_what_is_cut_or_gone_is_named_with_what_is_lost_by_it(
    estate: Estate, kind: str, harming: Harming
) -> None:
    for name in sorted(set(estate.named(kind)) - set(estate.records)):
        before = estate.path(name).read_bytes()
        with estate.changed(name, harming(before)):
            if harming is a_zero_page and estate.path(name).read_bytes() == before:
                continue
            report = estate.verify(Depth.BYTES)
            assert name in {finding.name for finding in report.findings}
            assert estate.require_nothing_wrong(lost_of(report)) == len(report.harmed)


def test_what_is_lost_of_a_pack_are_the_extents_behind_the_cut(estate: Estate) -> None:
    name = estate.packs_of(OS)[0]
    frames = estate.frames(name)
    data = estate.path(name).read_bytes()
    cut = sorted(frames)[4][1] + 7
    behind = {digest for (_, end), digest in frames.items() if end > cut}
    behind.discard(blake3(fresh("a", 5)[5]).digest())
    for depth in (Depth.OBJECTS, Depth.BYTES):
        with estate.changed(name, data[:cut]):
            assert lost_of(estate.verify(depth)) == estate.holding(behind)


SWAPS = {
    "two packs of a disk": ("runs/run-1/packs/*", "runs/run-3/packs/*"),
    "packs of two clients": ("runs/run-1/packs/*", "runs/run-2/packs/*"),
    "two indexes of a disk": ("runs/run-1/index/*", "runs/run-3/index/*"),
    "indexes of two clients": ("runs/run-1/index/*", "runs/run-2/index/*"),
    "two log entries": ("log/000000000000", "log/000000000001"),
}


@pytest.mark.parametrize("what", SWAPS)
def test_objects_that_have_changed_places_are_found(estate: Estate, what: str) -> None:
    one, other = (
        next(name for name in estate.named(pattern) if name not in estate.records) for pattern in SWAPS[what]
    )
    first, second = estate.path(one).read_bytes(), estate.path(other).read_bytes()
    with estate.changed(one, second), estate.changed(other, first):
        report = estate.verify(Depth.BYTES)
        assert not report.is_sound
        if "log" in one:
            assert "moved" in report.error or "altered" in report.error
        else:
            assert {finding.name for finding in report.findings} == {one, other}
            assert estate.require_nothing_wrong(lost_of(report)) == len(report.harmed) > 0


def test_an_older_copy_of_the_log_s_end_is_no_damage_but_a_shorter_log(estate: Estate) -> None:
    """Only a witness that was kept elsewhere tells: that is not for a verify of the media alone."""
    head = estate.media.view().head
    with estate.changed(estate.named("log/*")[-1], None):
        report = estate.verify(Depth.BYTES)
    assert report.is_sound and report.head == head - 1


def flip(estate: Estate, pack: str, number: int) -> bytes:
    """The digest of a pack's frame after one of its bits was flipped."""
    (start, end), digest = sorted(estate.frames(pack).items())[number]
    data = bytearray(estate.path(pack).read_bytes())
    data[(start + end) // 2] ^= 16
    estate.path(pack).write_bytes(data)
    return digest


def test_each_depth_finds_what_it_promises(estate: Estate) -> None:
    frame = flip(estate, estate.packs_of(OS)[0], 7)
    harmed = estate.holding({frame})
    assert len(harmed) > 1
    assert estate.verify(Depth.LOG).is_sound
    assert estate.verify(Depth.OBJECTS).is_sound
    assert lost_of(estate.verify(Depth.BYTES)) == harmed
    assert lost_of(estate.verify(Depth.RESTORE)) == harmed


def test_damage_is_named_for_every_point_that_needs_the_object(estate: Estate) -> None:
    frame = flip(estate, estate.packs_of(OS)[0], 7)
    chosen = [max(estate.holding({frame}))]
    report = estate.verify(Depth.BYTES, points=chosen)
    assert report.points == tuple(chosen)
    assert lost_of(report) == estate.holding({frame})
    other = next(slot for slot, disk in estate.disks.items() if disk is DATA)
    assert estate.verify(Depth.BYTES, points=[other]).is_sound
    with pytest.raises(BadRequest, match="no recovery point 999"):
        estate.verify(points=[999])


def test_a_restore_drill_finds_a_damaged_frame_that_the_sample_of_packs_left_out(estate: Estate) -> None:
    pack = estate.packs_of(OS)[0]
    frame = flip(estate, pack, 7)

    class Never(random.Random):
        def random(self) -> float:
            return 1.0

    harmed = estate.holding({frame})
    restored = {f"point {slot}" for slot in harmed}
    for days in range(200):
        date = TODAY + dt.timedelta(days=days)
        chosen = Sample.on(date, 0.05, Never())
        if not chosen.has(pack) and any(chosen.has(name) for name in restored):
            assert estate.verify(Depth.BYTES, sample=0.05, rng=Never(), date=date).is_sound
            assert lost_of(estate.verify(Depth.RESTORE, sample=0.05, rng=Never(), date=date)) == harmed
            return
    raise AssertionError("no day restores a harmed point and leaves its pack alone")


def test_a_drill_gives_the_digest_that_a_restore_gives(estate: Estate, tmp_path: Path) -> None:
    report = estate.verify(Depth.RESTORE)
    assert [digest.point for digest in report.digests] == list(estate.images)
    for digest in report.digests:
        backup = estate.media.view().points[digest.point].point.disks[0]
        restored = restore_disk(estate.media, backup, tmp_path / str(digest.point), format=Format.RAW)
        assert restored.sha256 == digest.sha256


def test_damage_is_recorded_once_and_told_by_the_log(estate: Estate) -> None:
    frames = {flip(estate, estate.packs_of(OS)[0], 7), flip(estate, estate.packs_of(DATA)[0], 2)}
    media = Media.open(str(estate.location), write=True)
    slots = record_damage(media, estate.verify(Depth.BYTES))
    assert len(slots) == 2, "one entry for each object"
    assert record_damage(media, estate.verify(Depth.RESTORE)) == ()
    told = {slot: harm for slot in estate.images if (harm := harm_in_log(estate.media, slot))}
    assert told == estate.holding(frames)


def test_damage_that_has_spread_is_recorded_as_well(estate: Estate) -> None:
    pack = estate.packs_of(OS)[0]
    frames = {flip(estate, pack, 7)}
    media = Media.open(str(estate.location), write=True)
    record_damage(media, estate.verify(Depth.BYTES))
    frames.add(flip(estate, pack, 8))
    assert len(record_damage(media, estate.verify(Depth.BYTES))) == 1
    assert len(media.view().damaged[pack]) == 3, "with the one that was moved away long ago"
    late = estate.back_up(OS, fresh("late", 30))
    assert harm_in_log(media, late) == []
    assert len(record_damage(media, estate.verify(Depth.BYTES))) == 1
    assert harm_in_log(media, late) == estate.holding(frames)[late]


def test_damage_of_what_is_doomed_since_is_not_recorded(estate: Estate) -> None:
    """It goes anyway: nothing refers to it, and nobody is to heal it."""
    media = Media.open(str(estate.location), write=True)
    alone = estate.back_up(DATA, fresh("alone", 1))
    made = media.view().points[alone]
    pack = made.point.disks[0].packs[0]
    flip(estate, pack, 0)
    report = estate.verify(Depth.BYTES)
    assert [item.name for item in report.findings] == [pack]
    media.append(ForgetEntry(points=(alone,), reason="retention"))
    media.append(DoomEntry(objects=(pack,), points=(alone,), reason="prune"))
    assert record_damage(media, report) == ()
    assert pack not in media.view().damaged


def test_a_verify_writes_nothing(estate: Estate) -> None:
    flip(estate, estate.packs_of(OS)[0], 7)
    before = objects(estate.location)
    estate.verify(Depth.RESTORE)
    assert objects(estate.location) == before
    assert not list((estate.folder / "scratch").iterdir())


def test_a_pack_that_has_changed_where_nothing_is_needed_is_told_once(estate: Estate) -> None:
    """It harms nobody, but nothing new should refer to it and the next backup should leave it behind."""
    pack = estate.packs_of(DATA)[0]
    data = estate.path(pack).read_bytes()
    with estate.changed(pack, data[:-1] + b"?"):
        report = estate.verify(Depth.BYTES)
        assert [(item.name, item.offsets, item.harm) for item in report.findings] == [(pack, (), ())]
        media = Media.open(str(estate.location), write=True)
        assert len(record_damage(media, report)) == 1
        assert media.view().damaged[pack] == WHOLE
        assert estate.require_nothing_wrong({}) == 0
        again = estate.verify(Depth.BYTES)
        assert again.is_sound and "known" in again.remarks[0]


def test_a_point_that_is_given_up_while_it_is_verified_is_no_damage(estate: Estate) -> None:
    """A prune dooms and deletes while a verify reads: what nobody needs any more is not called lost."""
    media = Media.open(str(estate.location), write=True)
    alone = estate.back_up(DATA, fresh("alone", 1))
    run = media.view().points[alone].run
    goes = set(estate.named(f"runs/{run}/*/*"))

    def prune(_number: int, method: str, name: str) -> None:
        if method == "read" and name in goes and estate.path(name).exists():
            media.append(ForgetEntry(points=(alone,), reason="old"))
            media.append(DoomEntry(objects=tuple(sorted(goes)), points=(alone,), reason="prune"))
            for item in goes:
                estate.path(item).unlink()

    watched = Media(FaultyStore(media.store, prune), write=False)
    report = verify(
        watched, Depth.BYTES, scratch=estate.folder / "scratch", date=TODAY, threads=1, rng=random.Random(1)
    )
    assert alone in report.points and alone not in media.view().points
    assert report.is_sound, report.text()
    assert any("no point needs" in remark for remark in report.remarks)


def test_a_writer_beside_a_verify_disturbs_neither(estate: Estate) -> None:
    made: list[int] = []

    def write(_number: int, method: str, name: str) -> None:
        if method == "read" and "/packs/" in name and len(made) < 3:
            made.append(estate.back_up(OS, fresh(f"beside {len(made)}", 8, 21)))

    watched = Media(FaultyStore(estate.media.store, write), write=False)
    frame = flip(estate, estate.packs_of(OS)[0], 8)
    report = verify(
        watched, Depth.BYTES, scratch=estate.folder / "scratch", date=TODAY, threads=1, rng=random.Random(1)
    )
    assert len(made) == 3 and not set(made) & set(report.points)
    assert lost_of(report) == estate.holding({frame}), "new points that share the frame are named as well"


def test_a_media_that_nobody_wrote_to_is_sound(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    media = Media.create(str(tmp_path / "media"), now=dt.datetime.now(dt.UTC))
    report = verify(media, Depth.RESTORE, scratch=tmp_path / "scratch", date=TODAY)
    assert report.is_sound and report.points == ()


@pytest.mark.parametrize("share", [0.02, 0.05, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("days", [1, 2, 7, 14, 28, 30, 31])
def test_everything_is_seen_within_the_stated_number_of_runs(share: float, days: int) -> None:
    class Never(random.Random):
        def random(self) -> float:
            return 1.0

    names = [f"runs/r/packs/{number:032x}.pack" for number in range(300)]
    seen: set[str] = set()
    cycle = Sample.on(TODAY, share, Never()).cycle
    for run in range(cycle):
        sample = Sample.on(TODAY + dt.timedelta(days=run * days), share, Never())
        seen.update(name for name in names if sample.has(name))
    assert seen == set(names)


def test_a_sample_is_about_as_large_as_was_asked_for() -> None:
    names = [f"runs/r/packs/{number:032x}.pack" for number in range(20_000)]
    for share in (0.05, 0.3):
        sample = Sample.on(TODAY, share, random.Random(5))
        chosen = sum(sample.has(name) for name in names) / len(names)
        assert share * 0.85 < chosen < share * 1.5


def test_a_read_error_of_the_store_s_loses_only_the_frames_that_it_hides(estate: Estate) -> None:
    pack = estate.packs_of(DATA)[0]
    (start, end), digest = sorted(estate.frames(pack).items())[3]

    def unreadable(_number: int, method: str, name: str) -> Any:
        return None

    class BadSector(FaultyStore):
        def read(self, name: str, at: ByteRange | None = None, *, limit: int | None = None) -> bytes:
            if name == pack and at is not None and at.offset < end and at.end > start:
                raise MediaDamaged(f"{name}: cannot be read: Input/output error")
            return super().read(name, at, limit=limit)

    watched = Media(BadSector(estate.media.store, unreadable), write=False)
    backup = next(
        made.point.disks[0] for made in watched.view().live if made.point.disks[0].disk.key == DATA.key
    )
    done = restore_disk(watched, backup, estate.folder / "image", format=Format.RAW, salvage=True)
    assert [item.range for item in done.lost] == estate.holding({digest})[min(estate.holding({digest}))]


def test_a_whole_index_that_is_lost_leaves_what_newer_indexes_say(estate: Estate) -> None:
    base, newer = estate.named("runs/run-1/index/*")[0], fresh("c", 0, 1, 20)
    with estate.changed(base, None):
        lost = lost_of(estate.verify(Depth.OBJECTS))
    slots = [slot for slot, disk in estate.disks.items() if disk is OS]
    assert set(lost) == set(slots)
    assert lost[slots[0]] == [ByteRange(0, SIZE)]
    known = {*newer, 3}
    unknown = {at // EXTENT for item in lost[slots[1]] for at in range(item.offset, item.end, EXTENT)}
    assert unknown == set(range(40)) - known


def a_finding(*, points: int, harms: int, ranges: int = 1) -> Finding:
    """A pack whose loss harms many points in many ways."""
    frames = tuple(range(2**32 - ranges, 2**32))
    of = tuple(range(10**11, 10**11 + points))
    lost = tuple((2**45 + at, 2**45 + at + 1) for at in range(ranges))
    harm = Harm(points=of, disk_key="d" * 20, ranges=lost, offsets=frames)
    return Finding(
        name=layout.pack("r" * 64, bytes(16)), reason="decay", offsets=frames, harm=(harm,) * harms
    )


@pytest.mark.parametrize(
    "found",
    [
        a_finding(points=2_600, harms=1_300),
        a_finding(points=800_000, harms=1),
        a_finding(points=1, harms=1, ranges=200_000),
        a_finding(points=1, harms=40_000),
    ],
    ids=["many times many points", "many points", "many ranges", "many harms"],
)
def test_damage_that_one_entry_cannot_hold_takes_several(found: Finding) -> None:
    entries = list(damage_entries(found))
    assert all(len(documents.encode(entry)) < layout.MAX_DOCUMENT_SIZE for entry in entries)
    told = Counter[tuple[int, int]]()
    for harm in (harm for entry in entries for harm in entry.harm):
        assert len(harm.ranges) == len(harm.offsets)
        told[len(harm.points), len(harm.ranges)] += 1
    held = sum(points * ranges * times for (points, ranges), times in told.items())
    assert held == sum(len(harm.points) * len(harm.ranges) for harm in found.harm)
