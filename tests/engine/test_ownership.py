"""What is not ours is never touched; what is ours never stays behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from azsim.control import Control
from tests.engine.story import run_job, run_of
from tests.engine.world import (
    MANAGED,
    MIB,
    PREMIUM_VHD,
    STANDARD_VHD,
    World,
    random_bytes,
)
from tests.media.faulty_store import FaultyStore
from vsa.azure.grants import Grants
from vsa.errors import RunStopped
from vsa.media import layout
from vsa.media.entries import DoomEntry, Result
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.model import DiskBackup, Method, Reason, SnapshotRef
from vsa.stop import Stop
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.dead_runs import EarlierRuns, JudgedRun, Verdict
from vsa.transfer.runs import Run


def all_snapshots(world: World) -> set[str]:
    """Every snapshot of this world's disks, whoever made it."""
    return world.all_snapshots


def snapshot_by_others(world: World, name: str, tags: dict[str, str]) -> None:
    body = {
        "location": "westeurope",
        "tags": tags,
        "properties": {
            "incremental": True,
            "creationData": {"createOption": "Copy", "sourceResourceId": world.label("os")},
        },
    }
    world.connection.compute.snapshots.begin_create_or_update(world.group, name, body).result()


def test_managed_snapshots_of_others_are_never_touched(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    (disk,) = world.media.view().points[min(world.points)].point.disks
    run = world.media.view().points[min(world.points)].run
    world.back_up()
    # The first run is over and its snapshot is gone: its name is free for others, and its id is known to us.
    name = disk.snapshot.id.rsplit("/", 1)[1]
    tags = {"vsa-media": world.media.id, "vsa-run": run, "vsa-disk": disk.disk.key}
    world.control.advance_clock(601)
    assert disk.snapshot.id.lower() in world.standing.things, "another media's has it"
    snapshot_by_others(world, f"{name}x", tags)
    snapshot_by_others(world, f"x{name}", tags)
    snapshot_by_others(world, f"vsa-{run}-another-disk", tags | {"vsa-disk": "another-disk"})
    theirs = all_snapshots(world) - world.bases
    assert len(theirs) == 3
    for method in (Method.CBT, Method.CRC, Method.CBT):
        assert world.back_up(by=method).result is Result.COMPLETED
    report = world.back_up(method="crc")
    assert len(report.released) == 1
    assert all_snapshots(world) == theirs


@pytest.mark.parametrize("kind", [STANDARD_VHD, PREMIUM_VHD])
def test_blob_snapshots_of_others_are_never_touched(world: World, kind: str) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")}, kind=kind)
    world.back_up()
    (disk,) = world.media.view().points[min(world.points)].point.disks
    marks = {"vsa_media": "another-media", "vsa_run": "0" * 16, "vsa_disk": disk.disk.key}
    theirs = set()
    for metadata in ({}, marks, marks | {"vsa_media": world.media.id, "vsa_disk": "another-disk"}):
        world.control.advance_clock(601)
        theirs.add(world.vhd("os").create_snapshot(metadata=metadata)["snapshot"])
    world.back_up()
    world.back_up(method="crc")
    assert all_snapshots(world) == theirs


def test_two_media_of_one_disk_keep_their_own_bases(world: World, control: Control, tmp_path: Path) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    other = World(control, tmp_path / "other")
    other.share(world)
    assert other.reasons(other.back_up())["os"] is Reason.FULL_FIRST
    world.write("os", 0, random_bytes(512, 1))
    assert world.reasons(world.back_up())["os"] is Reason.CBT
    assert other.reasons(other.back_up())["os"] is Reason.CBT
    assert len(all_snapshots(world)) == 2
    world.require_sound()
    other.require_sound()


def test_a_run_that_lives_elsewhere_keeps_its_snapshots(world: World) -> None:
    """Another job of the same disk, begun and not ended, is no leftover: its process may be alive."""
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    slow = world.job()
    discovery = slow.discover()
    run = slow.new_run(slow.identify_disks(discovery.selected[0]))
    slow.create_snapshots(run)
    assert len(world.snapshots) == 2
    world.write("os", 0, random_bytes(512, 1))
    world.back_up()
    assert len(world.snapshots) == 2
    slow.release(run)
    world.require_sound()


def test_a_fenced_run_creates_nothing_more(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    job = world.job()
    run = run_of(job)
    world.media.append(DoomEntry(runs=(run.id,), reason="held for dead"))
    with pytest.raises(RunStopped, match="was fenced"):
        job.create_snapshots(run)
    assert world.snapshots == set()


def about_to_commit(world: World) -> tuple[BackupJob, Run, SnapshotRef, DiskBackup]:
    """A job of one disk, whose stream has ended."""
    world.add_vm({"os": random_bytes(MIB, "os")})
    job = world.job()
    run = run_of(job)
    (snapshot,) = job.create_snapshots(run)
    backup = job.stream(job.order(run, run.disks[0], snapshot, None, "proxy-a"))
    return job, run, snapshot, backup


def test_a_run_that_is_fenced_in_the_middle_asks_for_no_access_and_cannot_commit(world: World) -> None:
    job, run, snapshot, backup = about_to_commit(world)
    world.media.append(DoomEntry(runs=(run.id,), reason="held for dead"))
    since = world.control.last_request()
    with pytest.raises(RunStopped, match="was fenced"):
        job.stream(job.order(run, run.disks[0], snapshot, None, "proxy-a"))
    assert not any("begin" in row["path"].lower() for row in world.control.requests(since=since))
    with pytest.raises(RunStopped, match="was fenced"):
        job.commit(run, [backup])
    assert world.media.view().points == {}
    job.release(run)
    world.require_no_leftovers()


def test_a_run_that_commits_just_before_it_is_fenced_keeps_its_point(world: World) -> None:
    job, run, snapshot, backup = about_to_commit(world)

    def commit_first(_number: int, method: str, name: str) -> None:
        if method == "create" and name.startswith(layout.LOG) and not world.media.view().points:
            job.commit(run, [backup])

    store = FaultyStore(FolderStore(world.folder / "media"), commit_first)
    intent = world.media.intent(run.id)
    assert intent
    dead = JudgedRun(intent, Verdict.DEAD, "held for dead")
    following = world.job(media=Media(store, write=True))
    assert following.release_dead_runs(EarlierRuns((dead,), (), frozenset())) == ()
    (point,) = world.media.view().points.values()
    assert (point.run, world.media.view().fenced) == (run.id, set())
    assert world.all_snapshots == world.bases == {snapshot.id.lower()}


def test_a_staging_blob_goes_even_when_somebody_deleted_its_snapshot(world: World) -> None:
    world.add_vm({"os": random_bytes(9 * MIB, "os")}, kind=PREMIUM_VHD)
    job = world.job()
    run = run_of(job)
    (snapshot,) = job.create_snapshots(run)
    job.stage(run, run.disks[0], snapshot)
    assert len(world.staging_blobs) == 1
    world.delete_snapshot(snapshot, "os")
    assert job.release(run) == ()
    world.require_no_leftovers()


class StopsWhileReading:
    """A watcher that stops the job when its first bytes have arrived."""

    def __init__(self) -> None:
        self.job: Any = None

    def started(self, label: str, total_bytes: int) -> None: ...

    def advanced(self, count: int) -> None:
        self.job.stop.set()

    def finished(self) -> None: ...


@pytest.mark.parametrize("kind", [MANAGED, PREMIUM_VHD])
def test_a_stopped_job_commits_nothing_and_cleans_up(world: World, kind: str) -> None:
    world.add_vm({"os": random_bytes(40 * MIB, "os")}, kind=kind)
    watcher = StopsWhileReading()
    job = watcher.job = world.job(progress=watcher)
    report = run_job(job)
    assert report.result is Result.FAILED
    assert "told to stop" in report.vms[0].error
    assert world.media.view().points == {}
    world.require_no_leftovers()
    assert world.reasons(world.back_up())["os"] is Reason.FULL_FIRST
    world.require_sound()


def test_a_job_that_waits_for_azure_to_allow_a_snapshot_can_be_stopped(world: World) -> None:
    """Azure takes one snapshot of a premium VHD in ten minutes: the wait is visible and ends at once."""
    world.add_vm({"os": random_bytes(MIB, "os")}, kind=PREMIUM_VHD)
    world.back_up()
    job = world.job(between=0)
    since = world.control.last_request()
    reports: list[Any] = []
    thread = threading.Thread(target=lambda: reports.append(run_job(job)))
    thread.start()
    while not any(row["status"] == 409 for row in world.control.requests(since=since)):
        time.sleep(0.01)
    job.stop.set()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert reports[0].result is Result.FAILED
    assert "told to stop" in reports[0].vms[0].error
    assert world.reasons(world.back_up())["os"] is Reason.CBT
    world.require_sound()


def test_snapshots_that_know_more_than_the_media_are_left_alone_and_said(world: World) -> None:
    """A media that was put back takes the bases of lost points for leftovers, if nothing tells it."""
    world.add_vm({"os": random_bytes(MIB, "os")})
    assert world.back_up().result is Result.COMPLETED
    (disk,) = world.media.view().points[min(world.points)].point.disks
    witness = f"{world.media.view().head}:{'0' * 64}"
    tags = {"vsa-media": world.media.id, "vsa-run": "0" * 16, "vsa-disk": disk.disk.key}
    snapshot_by_others(world, f"vsa-{'0' * 16}-{disk.disk.key}", tags | {"vsa-witness": witness})
    before = all_snapshots(world)
    report = world.back_up()
    assert report.result is Result.FAILED
    assert f"the log was seen with entry {witness}" in report.vms[0].error
    assert all_snapshots(world) == before
    ours = [row["tags"] for row in world.control.inventory()["snapshots"]]
    assert sum("vsa-witness" in tags for tags in ours if tags.get("vsa-media") == world.media.id) == 2


def raise_next(errors: Iterator[Exception | None]) -> None:
    if (error := next(errors)) is not None:
        raise error


def test_access_that_is_granted_when_the_run_has_just_ended_is_given_back(world: World) -> None:
    """Its base stays, so nobody would revoke it before the next job."""
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    (disk,) = world.media.view().points[min(world.points)].point.disks
    ends = iter([None, RunStopped("it has its recovery point already")])
    with pytest.raises(RunStopped):
        Grants(world.connection, guard=partial(raise_next, ends), stop=Stop()).snapshot(disk.snapshot)
    assert next(ends, "asked twice") == "asked twice"
    assert not [row["id"] for row in world.control.inventory()["snapshots"] if row["grant_open"]]


def asked_for_access(world: World, since: int) -> int:
    rows = world.control.requests(since=since)
    return sum(row["path"].lower().endswith("/begingetaccess") for row in rows)


def test_a_lock_that_keeps_access_open_does_not_hide_that_the_run_has_ended(world: World) -> None:
    """Azure's refusal to revoke is none to grant: no room is made, and no access asked for a second time."""
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    (disk,) = world.media.view().points[min(world.points)].point.disks
    guards = chain([None], repeat(RunStopped("it was fenced")))
    rooms: list[None] = []
    grants = Grants(
        world.connection,
        guard=partial(raise_next, guards),
        stop=Stop(),
        make_room=lambda: rooms.append(None),
    )
    since = world.control.last_request()
    revoke = {"plane": "arm", "method": "POST", "path": "(?i)endgetaccess", "times": None}
    locked = world.fault("status", **revoke, status=409, code="ScopeLocked")
    with locked, pytest.raises(RunStopped, match="it was fenced"):
        grants.snapshot(disk.snapshot)
    assert (asked_for_access(world, since), rooms) == (1, [])


def test_a_run_that_ends_while_room_is_made_asks_for_no_access_again(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    (disk,) = world.media.view().points[min(world.points)].point.disks
    ends: list[RunStopped] = []
    grants = Grants(
        world.connection,
        guard=lambda: raise_next(iter(ends or [None])),
        stop=Stop(),
        make_room=lambda: ends.append(RunStopped("it was fenced")),
    )
    since = world.control.last_request()
    full = {"plane": "arm", "method": "POST", "path": "(?i)begingetaccess"}
    with (
        world.fault("status", **full, status=409, code="Conflict"),
        pytest.raises(RunStopped, match="fenced"),
    ):
        grants.snapshot(disk.snapshot)
    assert asked_for_access(world, since) == 1


def test_a_run_that_ends_while_azure_is_busy_asks_for_no_access_again(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    (disk,) = world.media.view().points[min(world.points)].point.disks
    guards = iter([None, RunStopped("it was fenced")])
    grants = Grants(world.connection, guard=partial(raise_next, guards), stop=Stop())
    since = world.control.last_request()
    grant = {"plane": "arm", "method": "POST", "path": "(?i)begingetaccess"}
    busy = world.fault("status", **grant, status=503, code="ServerBusy", retry_after=1)
    with busy, pytest.raises(RunStopped, match="fenced"):
        grants.snapshot(disk.snapshot)
    assert asked_for_access(world, since) == 1


@pytest.mark.parametrize("kind", [MANAGED, STANDARD_VHD, PREMIUM_VHD])
def test_a_run_that_ends_while_azure_is_busy_makes_no_snapshot(world: World, kind: str) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")}, kind=kind)
    job = world.job()
    run = run_of(job)
    create = {"plane": "arm", "path": "(?i)/snapshots/"} if kind == MANAGED else {"query": "comp=snapshot"}
    with busy_until_fenced(world, run.id, create), pytest.raises(RunStopped, match="was fenced"):
        job.create_snapshots(run)
    assert world.snapshots == set()


def test_a_run_that_ends_while_azure_is_busy_makes_no_staging_blob(world: World) -> None:
    world.add_vm({"os": random_bytes(9 * MIB, "os")}, kind=PREMIUM_VHD)
    job = world.job()
    run = run_of(job)
    (snapshot,) = job.create_snapshots(run)
    copy = {"plane": "blob", "header": "x-ms-copy-source"}
    with busy_until_fenced(world, run.id, copy), pytest.raises(RunStopped, match="was fenced"):
        job.stage(run, run.disks[0], snapshot)
    assert world.staging_blobs == []
    assert job.release(run) == ()
    world.require_no_leftovers()


@contextmanager
def busy_until_fenced(world: World, run: str, create: dict[str, Any]) -> Iterator[None]:
    """Azure refuses the first request to create something; before it is repeated, the run is fenced."""
    since = world.control.last_request()
    refused = threading.Event()

    def fence() -> None:
        while not any(row["status"] == 503 for row in world.control.requests(since=since)):
            time.sleep(0.01)
        Media.open(world.media.location, write=True).append(DoomEntry(runs=(run,), reason="held for dead"))
        refused.set()

    thread = threading.Thread(target=fence)
    busy = {"status": 503, "code": "ServerBusy", "retry_after": 2}
    with world.fault("status", **create, method="PUT", **busy):
        thread.start()
        yield
        thread.join(timeout=60)
    assert refused.is_set()
