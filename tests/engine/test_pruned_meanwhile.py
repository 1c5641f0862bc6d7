"""A prune gives up what a running backup builds on: the backup is not lost, and neither is anything else."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.world import KIB, MIB, World, random_bytes
from tests.subclient.builders import a_source_disk
from tests.transfer.records import a_backup, a_snapshot
from vsa.errors import ObjectMissing
from vsa.media.entries import Damaged, DamageEntry, Result
from vsa.media.pack import HEADER_SIZE
from vsa.model import DiskBackup, Method, Reason
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.doomed import upon_what_stands
from vsa.transfer.liveness import has_ended, this_process
from vsa.transfer.methods import Known, Recorded
from vsa.upkeep.forgetting import Limits, forget, named, plan_forgetting
from vsa.upkeep.prune import carry_out, plan_prune


def give_up(world: World, *slots: int) -> None:
    """Forget points and prune at once, as nobody would who keeps a grace. Azure's clock, which each job moves
    on here, is ahead of this machine's: that is no news."""
    now = dt.datetime.now(dt.UTC)
    request = named(slots)
    limits = Limits(override_share=True, trust_clock=True)
    plan = plan_forgetting(world.media, request, now=now, limits=limits)
    forget(world.media, plan, now=now)
    scratch = world.folder / "prune"
    scratch.mkdir()
    later = now + dt.timedelta(seconds=1)
    carry_out(
        plan_prune(world.media, now=later, scratch=scratch, grace=dt.timedelta(0), has_ended=has_ended),
        process=this_process(),
    )
    shutil.rmtree(scratch)
    for slot in slots:
        del world.points[slot]


def interrupted(then: Callable[[], None]) -> type[BackupJob]:
    """A job in which something happens once between its last transfer and its commit."""

    class Interrupted(BackupJob):
        def commit(self, *given: Any) -> int:
            then()
            return super().commit(*given)

    return Interrupted


def newest(world: World) -> tuple[DiskBackup, ...]:
    return world.media.view().points[max(world.points)].point.disks


def test_when_no_point_is_left_the_disks_are_read_whole_and_committed(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os"), "data": random_bytes(MIB, "data")})
    world.back_up()
    world.write("os", 0, random_bytes(64 * KIB, "changed"))
    first = min(world.points)
    report = world.back_up(kind_of_job=interrupted(lambda: give_up(world, first)))
    assert report.result is Result.COMPLETED
    for backup in newest(world):
        assert (backup.reason, backup.parent) == (Reason.FULL_FIRST, None)
        assert "read again" in backup.detail
    assert len(world.points) == 1
    world.require_sound()


def test_when_an_older_point_stands_the_disks_are_compared_with_that(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    older = max(world.points)
    world.write("os", 0, random_bytes(64 * KIB, "second"))
    # A full of its own: what it stored, nobody else needs.
    world.back_up(full=True)
    second = max(world.points)
    world.write("os", 128 * KIB, random_bytes(64 * KIB, "third"))
    world.back_up(kind_of_job=interrupted(lambda: give_up(world, second)))
    (backup,) = newest(world)
    assert (backup.method, backup.reason, backup.parent) == (Method.CRC, Reason.CRC_NO_BASE, older)
    world.require_sound()


def test_what_shares_frames_that_are_found_damaged_before_its_commit_is_read_again(world: World) -> None:
    contents = random_bytes(MIB, "both")
    vm = world.add_vm({"os": contents})
    world.back_up()
    (first,) = newest(world)
    world.attach(vm, "data", contents)

    def find_damage() -> None:
        damaged = Damaged(name=first.packs[0], offsets=(HEADER_SIZE,))
        world.media.append(DamageEntry(objects=(damaged,), reason="verify"))

    report = world.back_up(kind_of_job=interrupted(find_damage))
    assert report.result is Result.COMPLETED
    backups = {backup.disk.key: backup for backup in newest(world)}
    (data,) = (backup for key, backup in backups.items() if key != first.disk.key)
    assert "read again" in data.detail and "found damaged" in data.detail
    assert 0 < data.figures.stored < data.figures.shared, "only what is damaged is stored once more"
    assert "read again" not in backups[first.disk.key].detail, "its damage was its parent's before"
    world.require_sound()


def recorded(slot: int) -> Known:
    return Known(latest=Recorded(slot, a_backup(a_snapshot(a_source_disk()))))


def test_a_stream_whose_parent_is_given_up_while_it_reads_begins_again() -> None:
    knowledge = iter([recorded(1), Known(), Known()])
    tried: list[Known] = []

    def stream(known: Known) -> str:
        tried.append(known)
        if known.latest is not None:
            raise ObjectMissing("an index is gone")
        return "done"

    assert upon_what_stands(stream, lambda: next(knowledge)) == "done"
    assert [known.latest is None for known in tried] == [False, True]


def test_what_is_missing_while_its_point_stands_is_damage() -> None:
    def stream(known: Known) -> None:
        raise ObjectMissing("an index is gone")

    with pytest.raises(ObjectMissing):
        upon_what_stands(stream, lambda: recorded(1))
