"""Access to a base is ended beside the transfer, and always before the stream is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engine.test_faults_data_plane import READ
from tests.engine.world import MIB, World, random_bytes
from vsa import fault_points
from vsa.azure import grants
from vsa.azure.grants import Grants
from vsa.errors import VsaError
from vsa.fault_points import FaultPoint
from vsa.model import DiskBackup, Reason, SnapshotRef
from vsa.stop import Stop
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.order import StreamOrder

SECONDS = 30.0
"""Until something that should come by itself is given up."""
revoke = grants.revoke


@pytest.fixture
def job(world: World) -> BackupJob:
    """A job of one disk, which has a base and a change since."""
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    world.write("os", 512, random_bytes(512, "change"))
    return world.job()


@pytest.fixture
def order(job: BackupJob) -> Iterator[StreamOrder]:
    disks = job.identify_disks(job.discover().selected[0])
    run = job.new_run(disks)
    (snapshot,) = job.create_snapshots(run)
    yield job.order(run, disks.disks[0], snapshot, None, "proxy-a")
    assert job.release(run) == ()


@pytest.fixture
def base(job: BackupJob) -> SnapshotRef:
    ((_, base),) = job.media.view().bases().values()
    return base


def is_open(world: World, snapshot: SnapshotRef) -> bool:
    rows = world.control.inventory()["snapshots"]
    return any(row["grant_open"] for row in rows if row["id"].lower() == snapshot.id.lower())


def test_a_disk_is_on_the_media_before_azure_has_ended_access(
    job: BackupJob, order: StreamOrder, base: SnapshotRef, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = threading.Event()

    def held_up(*what: Any) -> None:
        assert stored.wait(SECONDS), "the transfer waits for it"
        assert is_open(world, base)
        revoke(*what)

    monkeypatch.setattr(grants, "revoke", held_up)
    fault_points.install(lambda point: stored.set() if point is FaultPoint.DISK_STORED else None)
    try:
        assert job.stream(order).reason is Reason.CBT
    finally:
        fault_points.install(None)
    assert not is_open(world, base), "the stream is over, and its base may be read"


@pytest.mark.parametrize("ends", ["well", "in an error", "by a stop"])
def test_no_stream_is_over_before_access_is_ended(
    job: BackupJob, order: StreamOrder, base: SnapshotRef, world: World, ends: str
) -> None:
    slow = world.fault("delay", seconds=1.0, plane="arm", method="POST", path="(?i)endgetaccess")
    with slow:
        if ends == "well":
            assert job.stream(order).reason is Reason.CBT
        elif ends == "in an error":
            with world.fault("status", **READ, status=403, code="AuthorizationFailure", times=None):
                require_failure(job, order)
        else:
            fault_points.install(lambda point: job.stop.set() if point is FaultPoint.READS_PLANNED else None)
            try:
                require_failure(job, order)
            finally:
                fault_points.install(None)
        assert not is_open(world, base)


def require_failure(job: BackupJob, order: StreamOrder) -> None:
    with pytest.raises(VsaError):
        job.stream(order)


def test_what_keeps_access_open_costs_the_stream_nothing_and_is_seen_to_later(
    job: BackupJob, order: StreamOrder, base: SnapshotRef, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    refused: dict[str, Any] = {"status": 403, "code": "AuthorizationFailed"}
    with world.fault("status", plane="arm", method="POST", path="(?i)endgetaccess", **refused):
        backup: DiskBackup = job.stream(order)
    assert backup.reason is Reason.CBT
    assert is_open(world, base)
    assert f"snapshot {base.id.rpartition('/')[2]}: revoke access" in caplog.text


def test_a_base_is_asked_for_again_only_when_its_access_has_ended(
    job: BackupJob, base: SnapshotRef, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is still being ended would end the new access too."""
    order: list[str] = []

    def slow(*what: Any) -> None:
        time.sleep(0.5)
        revoke(*what)
        order.append("ended")

    monkeypatch.setattr(grants, "revoke", slow)
    with Grants(job.connection, guard=lambda: None, stop=Stop()) as access:
        for _ in range(2):
            with access.base(base):
                order.append("granted")
    assert order == ["granted", "ended"] * 2
    assert not is_open(world, base)


def test_an_error_of_the_program_in_giving_back_is_not_lost(
    job: BackupJob, base: SnapshotRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*what: Any) -> None:
        revoke(*what)
        raise ZeroDivisionError

    monkeypatch.setattr(grants, "revoke", broken)
    with (
        pytest.raises(ZeroDivisionError),
        Grants(job.connection, guard=lambda: None, stop=Stop()) as access,
        access.base(base),
    ):
        pass
