"""One thing that will not go keeps no other from going: bases, snapshots, access, staging (F12, F39)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.engine.story import run_of
from tests.engine.test_leftovers import begun, begun_by_a_process_that_ends
from tests.engine.test_ownership import all_snapshots
from tests.engine.test_sweep import swept, things
from tests.engine.world import MANAGED, MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from vsa.azure.accounts import StorageAccounts
from vsa.azure.blob_address import BlobAddress
from vsa.azure.staging import staging_url
from vsa.errors import AccessDenied, TryAgainLater
from vsa.media.entries import DoomEntry, Result
from vsa.media.media import Media
from vsa.model import SnapshotRef
from vsa.transfer.pending import Thing
from vsa.transfer.runs import Run
from vsa.transfer.sweep import Sweep

THREE = {name: random_bytes(MIB, name) for name in ("os", "logs", "database")}


def lock(world: World, snapshot: str, kind: str = MANAGED) -> dict[str, Any]:
    """A lock on one snapshot, by its name or moment."""
    locked: dict[str, Any] = {"method": "DELETE", "status": 409, "code": "ScopeLocked", "times": None}
    if kind == MANAGED:
        return locked | {"plane": "arm", "path": f"/snapshots/{snapshot}$"}
    return locked | {"plane": "blob", "query": snapshot.replace(":", "(:|%3A)")}


def name_of(ref: SnapshotRef) -> str:
    return ref.moment or ref.id.rpartition("/")[2]


def ended(world: World, *runs: Run) -> None:
    world.media.append(DoomEntry(runs=tuple(run.id for run in runs), reason="the test has ended them"))


def name_in(run: Run) -> str:
    return f"vsa-{run.id}-{run.disks[0].key}"


@pytest.mark.parametrize("kind", [MANAGED, STANDARD_VHD])
def test_a_base_that_may_not_go_is_said_and_every_other_one_goes(world: World, kind: str) -> None:
    world.add_vm(THREE, kind=kind)
    world.back_up()
    held = list(world.media.view().bases().values())
    (_, first), *others = held
    (made,) = world.media.view().points.values()
    (disk,) = (item.disk.name for item in made.point.disks if item.disk.key == first.disk_key)
    with world.fault("status", **lock(world, name_of(first), kind)):
        report = world.back_up(method="crc")
    assert {item.base.disk_key for item in report.released} == {ref.disk_key for _, ref in others}
    assert world.snapshots == world.bases == {first.moment or first.id.lower()}
    (alarm,) = report.alarms
    assert alarm.startswith(
        f"cleanup pending for disk {disk}: a lock keeps it, somebody must remove the lock"
    )
    assert alarm.endswith("; this base is not needed: the subclient's method is CRC")
    assert report.result is Result.COMPLETED_WITH_ERRORS
    report = world.back_up(method="crc")
    assert [item.base.disk_key for item in report.released] == [first.disk_key]
    assert (report.alarms, world.snapshots) == ((), set())
    world.require_sound()


def test_bases_that_are_busy_are_asked_again_and_each_that_stays_is_said(world: World) -> None:
    world.add_vm(THREE)
    world.back_up()
    bases = [ref for _, ref in world.media.view().bases().values()]
    busy = {"plane": "arm", "method": "DELETE", "status": 503, "retry_after": 0}
    with (
        world.fault("status", **busy, path=f"/{name_of(bases[0])}$", times=2),
        world.fault("status", **busy, path=f"/{name_of(bases[1])}$", times=None),
        world.fault("status", **lock(world, name_of(bases[2]))),
    ):
        report = world.back_up(method="crc")
    assert [item.base.disk_key for item in report.released] == [bases[0].disk_key]
    assert len(report.alarms) == 2
    assert any("Azure did not do it now, the next sweep tries again" in line for line in report.alarms)
    assert any("a lock keeps it" in line for line in report.alarms)
    world.require_no_leftovers()
    assert len(world.back_up(method="crc").released) == 2
    world.require_sound()


@pytest.mark.parametrize("which", [0, 1])
def test_a_snapshot_that_is_busy_for_long_keeps_no_other_of_its_disk(world: World, which: int) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    runs = [begun(world.job()) for _ in range(2)]
    ended(world, *runs)
    busy = {"plane": "arm", "method": "DELETE", "status": 503, "retry_after": 0, "times": None}
    with world.fault("status", **busy, path=f"/{name_in(runs[which])}$"):
        report = swept(world)
    assert [item.name for item in report.removed] == [name_in(runs[1 - which])]
    assert [item.name for item in report.remaining] == [name_in(runs[which])]
    assert "Azure did not do it now" in report.pending[0]
    assert things(swept(world)) == [Thing.SNAPSHOT]
    world.require_no_leftovers()


def test_what_needs_a_person_is_said_before_what_needs_time(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    runs = [begun(world.job()) for _ in range(2)]
    ended(world, *runs)
    busy = {"plane": "arm", "method": "DELETE", "status": 503, "retry_after": 0, "times": None}
    for first, second in (runs, runs[::-1]):
        with (
            world.fault("status", **busy, path=f"/{name_in(first)}$"),
            world.fault("status", **lock(world, name_in(second))),
        ):
            (pending,) = swept(world).pending
        assert "a lock keeps it" in pending and "(and 1 more refusals)" in pending
    assert len(all_snapshots(world)) == 2
    swept(world)
    world.require_no_leftovers()


def test_a_snapshot_goes_though_nobody_may_end_the_access_to_it(world: World) -> None:
    """As far as Azure allows that: here the refusal comes when access has ended."""
    world.add_vm({"os": random_bytes(MIB, "os")})
    job = world.job()
    run = begun(job)
    access = {"access": "Read", "durationInSeconds": 3600}
    world.connection.compute.snapshots.begin_grant_access(world.group, name_in(run), access).result()
    refused = {"status": 403, "code": "AuthorizationFailed", "when": "after", "times": None}
    with world.fault("status", plane="arm", method="POST", path="endgetaccess", **refused):
        assert job.release(run) == ()
    world.require_no_leftovers()


UNLISTED = {
    "snapshots": ({"path": "/vhds$"}, Thing.STAGING_BLOB),
    "staging blobs": ({"path": "/vsa-staging$"}, Thing.SNAPSHOT),
}


@pytest.mark.parametrize("unlisted", UNLISTED)
@pytest.mark.parametrize("by", ["the job", "a sweep"])
def test_what_may_not_be_listed_keeps_nothing_that_may(world: World, unlisted: str, by: str) -> None:
    world.add_vm({"os": random_bytes(9 * MIB, "os")}, kind=PREMIUM_VHD)
    job = world.job()
    run = begun(job)
    ended(world, run)
    where, goes = UNLISTED[unlisted]
    refused = {"plane": "blob", "method": "GET", "query": "comp=list", "status": 403, "times": None}
    with world.fault("status", **refused, **where, code="AuthorizationFailure"):
        if by == "the job":
            (pending,) = job.release(run)
            assert "network rules or the identity's rights forbid it" in pending
        else:
            report = swept(world)
            assert things(report) == [goes]
            assert any(f"not looked at: {unlisted} of" in line for line in report.attention)
    assert (all_snapshots(world) == set()) is (goes is Thing.SNAPSHOT)
    assert (world.staging_blobs == []) is (goes is Thing.STAGING_BLOB)
    assert len(things(swept(world))) == 1
    world.require_no_leftovers()


@pytest.mark.parametrize(
    "locked",
    [
        {"path": "/vsa-staging/", "status": 412, "code": "LeaseIdMissing"},
        {"query": "snapshot=", "status": 409, "code": "BlobImmutableDueToPolicy"},
    ],
)
def test_a_staging_blob_and_its_snapshot_do_not_wait_for_each_other(
    world: World, locked: dict[str, Any]
) -> None:
    world.add_vm({"os": random_bytes(9 * MIB, "os")}, kind=PREMIUM_VHD)
    job = world.job()
    run = begun(job)
    with world.fault("status", plane="blob", method="DELETE", **locked, times=None):
        (pending,) = job.release(run)
    assert locked["code"] in pending and "still there" in pending
    assert len(all_snapshots(world)) + len(world.staging_blobs) == 1
    assert job.release(run) == ()
    world.require_no_leftovers()


def test_a_staging_blob_whose_copy_ends_meanwhile_is_deleted_all_the_same(world: World) -> None:
    world.add_vm({"os": random_bytes(9 * MIB, "os")}, kind=PREMIUM_VHD)
    job = world.job()
    run = run_of(job)
    (snapshot,) = job.create_snapshots(run)
    blob: dict[str, Any] = {"plane": "blob", "path": "/vsa-staging/"}
    with (
        world.fault("status", **blob, method="HEAD", skip=1, status=403, code="AuthorizationFailure"),
        pytest.raises(AccessDenied),
    ):
        job.stage(run, run.disks[0], snapshot)
    assert len(world.staging_blobs) == 1
    has_ended = {"status": 409, "code": "NoPendingCopyOperation", "when": "after"}
    with world.fault("status", **blob, method="PUT", query="comp=copy", **has_ended):
        assert job.release(run) == ()
    world.require_no_leftovers()


def test_a_staging_blob_that_cannot_be_deleted_does_not_hide_that_its_copy_failed(world: World) -> None:
    world.add_vm({"os": random_bytes(9 * MIB, "os")}, kind=PREMIUM_VHD)
    job = world.job()
    run = run_of(job)
    (snapshot,) = job.create_snapshots(run)
    blob: dict[str, Any] = {"plane": "blob", "path": "/vsa-staging/"}
    locked = {"status": 412, "code": "LeaseIdMissing", "times": None}
    with (
        # Each but the first, since the one who ends the copy asks for its id by such a request, too.
        world.fault("delay", **blob, method="HEAD", skip=1, seconds=2, times=None),
        world.fault("status", **blob, method="DELETE", **locked),
        ThreadPoolExecutor() as pool,
    ):
        aborted = pool.submit(abort_copy, world, run)
        with pytest.raises(TryAgainLater) as failed:
            job.stage(run, run.disks[0], snapshot)
        aborted.result()
    assert "ended as 'aborted', expected 'success'; and it cannot be deleted" in str(failed.value)
    assert "LeaseIdMissing" in str(failed.value)
    assert job.release(run) == ()
    world.require_no_leftovers()


def abort_copy(world: World, run: Run) -> None:
    """Somebody ends the copy to the run's staging blob as soon as it has begun."""
    while not world.staging_blobs:
        time.sleep(0.01)
    address = BlobAddress.parse(staging_url(run.disks[0], run.id))
    key = StorageAccounts(world.connection).key(address)
    blob = world.connection.blob(address.url, key)
    blob.abort_copy(blob.get_blob_properties().copy.id)


def test_where_the_media_takes_no_fence_what_is_over_goes_all_the_same(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    over = begun(world.job())
    begun_by_a_process_that_ends(world)
    ended(world, over)
    before = all_snapshots(world)
    (pending,) = Sweep(world.connection, Media.open(world.media.location)).clear(over.disks[0], frozenset())
    assert "the media takes no entry" in pending
    (gone,) = before - all_snapshots(world)
    assert gone.endswith(name_in(over))
    swept(world)
    world.require_no_leftovers()
