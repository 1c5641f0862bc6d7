"""What runs leave when their process, the media or Azure itself fails, and who removes it."""

from __future__ import annotations

import datetime as dt
import os
from typing import Any

import pytest

from tests.engine.job_process import in_another_process
from tests.engine.story import run_job, run_of
from tests.engine.world import MANAGED, MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from vsa.errors import AzureRefused
from vsa.media.media import Media
from vsa.model import Reason
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.runs import Run
from vsa.transfer.sweep import Sweep


def begun(job: BackupJob) -> Run:
    """A run that has its intent and its snapshots, and staging blobs where it needs them."""
    run = run_of(job)
    for disk, snapshot in zip(run.disks, job.create_snapshots(run), strict=True):
        job.stage(run, disk, snapshot)
    return run


def begin_and_vanish(job: BackupJob) -> None:
    begun(job)
    # As a process that dies: without the farewells of an interpreter.
    os._exit(0)


def begun_by_a_process_that_ends(world: World) -> None:
    process = in_another_process(world, begin_and_vanish)
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("kind", [MANAGED, STANDARD_VHD, PREMIUM_VHD])
def test_a_dead_run_is_released_on_disks_that_the_vm_has_lost_since(world: World, kind: str) -> None:
    world.add_vm({"os": random_bytes(MIB, "os"), "data": random_bytes(MIB, "data")}, kind=kind)
    begun_by_a_process_that_ends(world)
    world.detach(world.vms[0], "data")
    assert world.reasons(world.back_up()) == {"os": Reason.FULL_FIRST}
    world.require_no_leftovers()


@pytest.mark.parametrize("kind", [MANAGED, PREMIUM_VHD])
def test_where_the_media_takes_no_fence_grants_and_staging_blobs_go_and_snapshots_wait(
    world: World, kind: str
) -> None:
    world.add_vm({"os": random_bytes(9 * MIB, "os")}, kind=kind)
    job = world.job()
    run = begun(job)
    job.media = Media.open(world.media.location)
    (pending,) = job.release(run)
    assert "whose snapshots stay until it can be fenced" in pending
    assert (len(world.snapshots), world.staging_blobs) == (1, [])
    job.media = world.media
    assert job.release(run) == ()
    world.require_no_leftovers()


def half_made(world: World, **properties: Any) -> dict[str, Any]:
    """The answer to a look at a snapshot that Azure has not made, or not of this disk."""
    source = world.label("os")
    creation = {"createOption": "Copy", "sourceResourceId": source}
    body = {"name": "half", "location": "westeurope", "properties": {"creationData": creation} | properties}
    return {"method": "GET", "path": "/snapshots/vsa-", "status": 200, "code": "", "body": body}


@pytest.mark.parametrize(
    ("properties", "complaint"),
    [
        ({"provisioningState": "Failed"}, "Azure ended its creation as Failed"),
        ({"creationData": {"createOption": "Copy", "sourceUniqueId": "another"}}, "is of .*another"),
    ],
)
def test_a_snapshot_by_our_name_that_is_not_what_we_asked_for_is_not_adopted(
    world: World, properties: dict[str, Any], complaint: str
) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    job = world.job()
    run = run_of(job)
    with (
        world.fault("status", **half_made(world, **properties)),
        pytest.raises(AzureRefused, match=complaint),
    ):
        job.create_snapshots(run)
    job.release(run)
    assert world.reasons(world.back_up()) == {"os": Reason.FULL_FIRST}
    world.require_sound()


def snapshot_by_an_owner_who_went_back(world: World, ours: str) -> str:
    """Copying a snapshot over its VHD is how owners go back in time, and metadata is copied along."""
    vhd = world.vhd("os")
    vhd.set_blob_metadata(world.vhd("os", ours).get_blob_properties().metadata)
    world.control.advance_clock(601)
    return str(vhd.create_snapshot()["snapshot"])


@pytest.mark.parametrize("is_cleared", [False, True])
@pytest.mark.parametrize("kind", [STANDARD_VHD, PREMIUM_VHD])
def test_an_owners_snapshots_stay_although_their_vhd_inherited_our_marks(
    world: World, kind: str, is_cleared: bool
) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")}, kind=kind)
    world.back_up()
    (ours,) = world.bases
    theirs = snapshot_by_an_owner_who_went_back(world, ours)
    if is_cleared:
        world.vhd("os").set_blob_metadata({})
    world.back_up()
    assert world.vhd("os", theirs).exists()
    assert not world.vhd("os", ours).exists()
    sweep = Sweep(world.connection, world.media)
    plan = sweep.plan(sweep.open_runs(), None, ())
    assert plan.leftovers == ()
    (told,) = plan.attention
    assert theirs in told and "may be somebody's own" in told


def test_an_owners_snapshot_stays_that_inherited_the_marks_of_a_dead_run(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")}, kind=STANDARD_VHD)
    begun_by_a_process_that_ends(world)
    (ours,) = world.snapshots
    theirs = snapshot_by_an_owner_who_went_back(world, ours)
    world.vhd("os").set_blob_metadata({})
    world.back_up()
    assert world.snapshots == world.bases | {theirs}


def test_a_job_that_finds_nothing_dead_leaves_live_runs_alone(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    job = world.job()
    run = begun(job)
    run_job(world.job())
    assert run.id not in world.media.view().fenced
    assert job.release(run) == ()
    world.require_no_leftovers()


def test_a_job_that_died_releases_its_open_runs_before_it_looks_at_all_that_ever_were(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect's hooks have little time, and a media sees hundreds of runs a night."""
    world.add_vm({"os": random_bytes(MIB, "os")})
    for _ in range(3):
        world.back_up()
    job = world.job()
    run = begun(job)
    read: list[str] = []
    left: list[int] = []

    def intent(name: str, read_it: Any = world.media.intent) -> Any:
        read.append(name)
        left.append(len(world.snapshots))
        return read_it(name)

    monkeypatch.setattr(world.media, "intent", intent)
    released = job.release_all()
    assert released.pending == ()
    assert read[0] == run.id
    assert left == [2, 1, 1, 1], "the base alone is left when the others are looked at"
    began = job.started_at
    report = job.report_stopped("killed", released, started_at=began - dt.timedelta(minutes=5))
    assert report.started_at == began - dt.timedelta(minutes=5)
    assert ([vm.run for vm in report.vms], report.alarms) == ([run.id], ("killed",))
    assert len(read) == 4, "they are read once"
    assert job.report_stopped("again", released) == report

    ahead = world.job()
    report = ahead.report_stopped(
        "killed", ahead.release_all(), started_at=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    )
    assert report.started_at == ahead.started_at < report.ended_at, "another clock was ahead"
