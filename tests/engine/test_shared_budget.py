"""Azure throttles: one is refused, all wait, and what cleans up goes on. Counted by Azure's own log. (F19)"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.engine.test_leftovers import begun
from tests.engine.waits import Clock
from tests.engine.world import MANAGED, MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from vsa.azure.accounts import StorageAccounts
from vsa.azure.blob_address import BlobAddress
from vsa.azure.connection import AzureConnection
from vsa.azure.disks import identify_disk
from vsa.azure.grants import GrantedAccess
from vsa.azure.reader import RangeReader
from vsa.errors import TryAgainLater
from vsa.model import AttachedDisk
from vsa.ranges import ByteRange
from vsa.stop import Stop, again
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.runs import Run

CALLERS = 8
PAUSE = 600
THROTTLED: dict[str, Any] = {
    "plane": "arm",
    "method": "GET",
    "path": r"/disks/[^/]+$",
    "status": 429,
    "retry_after": PAUSE,
}


def asked(world: World, since: int, **which: str) -> list[dict[str, Any]]:
    """The requests since then whose every named property ends so."""
    rows = world.control.requests(since=since)
    return [row for row in rows if all(str(row[name]).endswith(end) for name, end in which.items())]


def job_and_run(world: World, kind: str = MANAGED) -> tuple[BackupJob, Run, Clock]:
    """A job whose run has its snapshots, and access to a managed one, under a clock of the test's."""
    clock = Clock()
    job = world.job(connection=replace(world.connection, clock=clock))
    run = begun(job)
    if kind == MANAGED:
        name = f"vsa-{run.id}-{run.disks[0].key}"
        access = {"access": "Read", "durationInSeconds": 3600}
        world.connection.compute.snapshots.begin_grant_access(world.group, name, access).result()
    return job, run, clock


def attached_disk(job: BackupJob) -> AttachedDisk:
    return job.discover().selected[0].disks[0]


@contextmanager
def many(call: Callable[[], Any], stop: Stop) -> Iterator[list[Future[Any]]]:
    """So many callers at once, each again and again; told to stop if the block fails."""
    with ThreadPoolExecutor(CALLERS) as pool:
        futures = [pool.submit(again, call, stop=stop) for _ in range(CALLERS)]
        try:
            yield futures
        except BaseException:
            stop.set()
            raise


def test_while_one_is_told_to_wait_no_other_asks_and_what_was_left_is_removed(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    job, run, clock = job_and_run(world)
    identify = partial(identify_disk, job.connection, attached_disk(job))
    since = world.control.last_request()
    disk = world.named("os")
    with world.fault("status", **THROTTLED), pytest.raises(TryAgainLater):
        identify()
    with many(identify, Stop()) as waiting:
        assert job.release(run) == ()
        world.require_no_leftovers()
        assert len(asked(world, since, plane="arm", path=f"/disks/{disk}")) == 1, "a storm"
        assert not any(future.done() for future in waiting)
        clock.ahead += PAUSE
        names = {future.result(timeout=60).name for future in waiting}
    assert names == {disk}
    assert len(asked(world, since, plane="arm", path=f"/disks/{disk}")) == 1 + CALLERS


def test_without_a_shared_budget_each_asks_for_itself(world: World) -> None:
    """What the other tests would count if nobody heard of the first refusal."""
    world.add_vm({"os": random_bytes(MIB, "os")})
    attached = attached_disk(world.job())
    rule = world.control.add_fault("status", **THROTTLED, times=None)
    for _ in range(CALLERS):
        with pytest.raises(TryAgainLater):
            identify_disk(replace(world.connection), attached)
    assert world.control.fired(rule) == CALLERS


def readers(connection: AzureConnection, url: str) -> Callable[[], None]:
    """Read the first bytes of a VHD, as a stream does."""
    address = BlobAddress.parse(url)
    accounts = StorageAccounts(connection)
    access = GrantedAccess(lambda: accounts.read_url(address, "", seconds=3600), "the VHD")

    def read() -> None:
        reader = RangeReader(
            access, tls=connection.tls_context, stop=Stop(), budget_of=connection.blob_budget
        )
        try:
            reader.read_into(ByteRange(0, 512), memoryview(bytearray(512)))
        finally:
            reader.close()

    return read


@pytest.mark.parametrize("kind", [STANDARD_VHD, PREMIUM_VHD])
def test_a_busy_storage_account_makes_all_readers_wait_and_no_cleanup(world: World, kind: str) -> None:
    world.add_vm({"os": random_bytes(9 * MIB, "os")}, kind=kind)
    job, run, clock = job_and_run(world, kind)
    read = readers(job.connection, run.disks[0].source)
    blob = job.connection.blob(
        run.disks[0].source, StorageAccounts(job.connection).key(BlobAddress.parse(run.disks[0].source))
    )
    since = world.control.last_request()
    busy = {"plane": "blob", "method": "HEAD", "path": "/vhds/", "status": 503, "code": "ServerBusy"}
    rule = world.control.add_fault("status", **busy, retry_after=PAUSE)
    with pytest.raises(Exception, match="ServerBusy"):
        blob.get_blob_properties()
    with many(read, Stop()) as waiting:
        assert job.release(run) == ()
        world.require_no_leftovers()
        ranges = [row for row in asked(world, since, plane="blob", method="GET") if row["range"]]
        assert (ranges, world.control.fired(rule)) == ([], 1)
        assert not any(future.done() for future in waiting)
        clock.ahead += PAUSE
        for future in waiting:
            future.result(timeout=60)
    ranges = [row for row in asked(world, since, plane="blob", method="GET") if row["range"]]
    assert len(ranges) == CALLERS


def test_a_job_that_is_told_to_stop_does_not_wait_until_azure_takes_requests_again(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    job, run, _ = job_and_run(world)
    attached = attached_disk(job)
    with world.fault("status", **THROTTLED), pytest.raises(TryAgainLater):
        identify_disk(job.connection, attached)
    with many(partial(identify_disk, job.connection, attached), job.stop) as waiting:
        job.stop.set()
        for future in waiting:
            with pytest.raises(Exception, match="told to stop"):
                future.result(timeout=60)
    assert job.release(run) == ()
    world.require_no_leftovers()
