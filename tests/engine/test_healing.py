"""Damage on the media and the jobs after it: what the disks still hold is healed in every point."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.azsim_process import AzsimProcess
from tests.engine.test_audit_end_to_end import write_without_history
from tests.engine.world import EXTENT, MANAGED, STANDARD_VHD, World, random_bytes
from vsa.errors import MediaDamaged, NoPoint
from vsa.media.media import Media
from vsa.media.pack import read_frames
from vsa.model import DiskBackup, Exclusion, Method, Reason
from vsa.ranges import ByteRange, merge
from vsa.transfer import runs
from vsa.transfer.backup_job import BackupJob
from vsa.upkeep.record import record_damage
from vsa.upkeep.report import Depth, VerifyReport
from vsa.upkeep.verify import verify

EXTENTS = 20


def a_world_with_two_points(world: World, kind: str = MANAGED, *, size: int = EXTENTS * EXTENT) -> None:
    world.add_vm({"os": random_bytes(size, f"os {world.number}")}, kind=kind)
    world.back_up()
    world.write("os", 2 * EXTENT, random_bytes(EXTENT, "second"))
    world.back_up()


def first_pack(world: World) -> Path:
    """The pack of the full backup."""
    point = world.media.view().points[min(world.points)].point
    return world.folder / "media" / point.disks[0].packs[0]


def damage(world: World, *extents: int) -> None:
    """Flip a bit in the frames that the full backup wrote for these extents."""
    path = first_pack(world)
    data = bytearray(path.read_bytes())
    frames = read_frames(bytes(data), path.name, world.media.codec)
    original = world.points[min(world.points)]["os"]
    for extent in extents:
        wanted = original[extent * EXTENT : (extent + 1) * EXTENT]
        frame = next(item for item in frames if data[item.offset : item.offset + item.length] == wanted)
        data[frame.offset + 100] ^= 1
    path.write_bytes(data)


def look(world: World) -> VerifyReport:
    scratch = world.folder / "verify"
    scratch.mkdir(exist_ok=True)
    media = Media.open(str(world.folder / "media"))
    return verify(
        media, Depth.RESTORE, scratch=scratch, date=dt.date(2026, 3, 4), rng=random.Random(1), threads=2
    )


def record(world: World) -> None:
    report = look(world)
    assert not report.is_sound
    assert record_damage(world.media, report)


def harm(world: World) -> dict[int, list[ByteRange]]:
    """What the log says of each point."""
    view = Media.open(str(world.folder / "media")).view()
    found = {
        slot: list(merge(ByteRange(*item) for harm in view.harm_of(slot) for item in harm.ranges))
        for slot in view.points
    }
    return {slot: ranges for slot, ranges in found.items() if ranges}


def extents(*numbers: int) -> list[ByteRange]:
    return list(merge(ByteRange(number * EXTENT, (number + 1) * EXTENT) for number in numbers))


@pytest.mark.parametrize(
    ("kind", "method"), [(MANAGED, Method.CBT), (STANDARD_VHD, Method.CBT), (MANAGED, Method.CRC)]
)
def test_what_the_disk_still_holds_is_healed_in_every_point(world: World, kind: str, method: Method) -> None:
    a_world_with_two_points(world, kind)
    damage(world, 4, 5, 11)
    record(world)
    assert harm(world) == dict.fromkeys(world.points, extents(4, 5, 11))
    report = world.back_up(by=method)
    assert world.disks(report)["os"].method is method
    assert report.alarms == ()
    assert harm(world) == {}
    world.require_sound()
    after = look(world)
    assert after.is_sound, after.text()
    later = world.back_up(by=Method.CBT)
    assert [vm.error for vm in later.vms] == [""]
    read = world.disks(later)["os"].figures
    assert read is not None and read.stored == 0, "what is healed is not read and stored again"


def test_what_has_changed_heals_no_old_point_and_the_new_one_is_sound(world: World) -> None:
    a_world_with_two_points(world)
    old = list(world.points)
    damage(world, 4, 5, 11)
    record(world)
    world.write("os", 5 * EXTENT, random_bytes(512, "changed"))
    report = world.back_up()
    assert harm(world) == dict.fromkeys(old, extents(5))
    (alarm,) = report.alarms
    assert f"point {old[0]} has lost 64 KiB: bytes {5 * EXTENT} to {6 * EXTENT}" in alarm
    newest = max(world.points)
    world.require_restores(newest, world.points[newest])
    for slot in old:
        with pytest.raises(MediaDamaged, match=f"bytes {5 * EXTENT} to {6 * EXTENT}"):
            world.require_restores(slot, world.points[slot])
    assert harm(world) == {slot: extents(5) for slot in look(world).harmed}


class FailsToCommit(BackupJob):
    """A job that dies between its streams and its points."""

    def commit(self, run: runs.Run, backups: Sequence[DiskBackup], failed: Sequence[Exclusion] = ()) -> int:
        raise NoPoint("the job failed before it could commit")


def test_healing_outlives_the_run_that_did_it(world: World) -> None:
    a_world_with_two_points(world)
    damage(world, 4, 11)
    record(world)
    report = world.back_up(kind_of_job=FailsToCommit)
    assert [vm.point for vm in report.vms] == [None]
    assert harm(world) == {}
    world.require_sound()
    world.back_up()
    world.require_sound()
    assert look(world).is_sound


@pytest.mark.parametrize("cut", ["missing", "half", "one byte"])
def test_a_pack_that_is_gone_or_cut_is_stored_anew_as_far_as_it_is_needed(world: World, cut: str) -> None:
    a_world_with_two_points(world)
    old = list(world.points)
    path = first_pack(world)
    data = path.read_bytes()
    path.unlink()
    if cut != "missing":
        path.write_bytes(data[: len(data) // 2] if cut == "half" else data[:-1])
    record(world)
    report = world.back_up()
    assert world.reasons(report) == {"os": Reason.CBT}
    # Extent 2 has changed between the first two points: only the first one had the old bytes.
    held = sorted(harm(world).items())
    lost_for_good = cut == "missing" or (cut == "half" and bool(held))
    assert held == ([(old[0], extents(2))] if lost_for_good else [])
    for slot in set(world.points) - set(harm(world)):
        world.require_restores(slot, world.points[slot])
    world.back_up()
    world.require_no_leftovers()


def test_nothing_can_build_on_an_index_that_is_lost(world: World) -> None:
    a_world_with_two_points(world)
    old = list(world.points)
    view = world.media.view()
    base = view.points[old[0]].point.disks[0].indexes[0].name
    path = world.folder / "media" / base
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for recorded in (False, True):
        if recorded:
            record(world)
        report = world.back_up()
        assert [vm.error for vm in report.vms] == [""]
        first = not recorded
        assert world.reasons(report)["os"] is (Reason.FULL_PARENT_DAMAGED if first else Reason.CBT)
    newest = max(world.points)
    world.require_restores(newest, world.points[newest])
    assert set(harm(world)) == set(old)
    assert any("the media is damaged" in alarm for alarm in report.alarms)


def test_an_index_that_the_log_calls_damaged_is_no_parent(world: World) -> None:
    a_world_with_two_points(world)
    base = world.media.view().points[min(world.points)].point.disks[0].indexes[0].name
    path = world.folder / "media" / base
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + b"?")
    record(world)
    path.write_bytes(sound)
    report = world.back_up()
    assert world.reasons(report) == {"os": Reason.FULL_PARENT_DAMAGED}
    assert f"{base} is damaged" in world.disks(report)["os"].detail
    world.require_sound()


def test_a_lie_of_the_change_list_about_a_damaged_extent_is_a_failed_audit(
    azure: AzsimProcess, world: World
) -> None:
    """An extent that is read for its damage alone should not have changed."""
    # So large that the audit proper is not likely to come across it.
    a_world_with_two_points(world, size=300 * EXTENT)
    damage(world, 4)
    record(world)
    before = world.points[max(world.points)]["os"][4 * EXTENT : 5 * EXTENT]
    write_without_history(azure, before, random_bytes(EXTENT, "a lie"))
    report = world.back_up(audit_extents=16)
    assert world.reasons(report) == {"os": Reason.CRC_AUDIT_FAILED}
    newest = max(world.points)
    world.require_restores(newest, world.points[newest])
    assert len(harm(world)) == 2


def test_a_short_last_extent_of_a_disk_that_has_grown_has_no_equal(world: World) -> None:
    """Its frame holds fewer bytes than the extent has now: nobody can be led to the new one."""
    half = EXTENT // 2
    a_world_with_two_points(world, size=EXTENTS * EXTENT + half)
    old = list(world.points)
    path = first_pack(world)
    data = bytearray(path.read_bytes())
    tail = world.points[old[0]]["os"][-half:]
    data[data.index(tail) + 5] ^= 1
    path.write_bytes(data)
    record(world)
    world.grow("os", 2 * EXTENTS * EXTENT)
    world.back_up()
    newest = max(world.points)
    world.require_restores(newest, world.points[newest])
    lost = [ByteRange(EXTENTS * EXTENT, EXTENTS * EXTENT + half)]
    assert harm(world) == dict.fromkeys(old, lost)
    assert look(world).harmed == tuple(old)
