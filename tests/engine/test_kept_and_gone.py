"""What Azure says of a removal, and what is true: gone already, not gone, kept by somebody. (F12, F39)"""

from __future__ import annotations

import datetime as dt
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.engine.questions import First, Questions
from tests.engine.test_leftovers import begun
from tests.engine.test_sweep import CRASHED, planned, swept, things
from tests.engine.waits import virtual_waits
from tests.engine.world import EXTENT, MANAGED, MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from tests.media.faulty_store import FaultyStore, Moment
from tests.soak import only_in_ci
from vsa.errors import MediaUnusable
from vsa.media.entries import Result
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.model import Reason
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.pending import Price, Thing
from vsa.transfer.runs import Run

SNAPSHOT: dict[str, Any] = {"plane": "arm", "method": "DELETE", "path": "/snapshots/vsa-"}
ACCESS: dict[str, Any] = {"plane": "arm", "method": "POST", "path": "(?i)/endGetAccess$"}
BLOB_SNAPSHOT: dict[str, Any] = {"plane": "blob", "method": "DELETE", "query": "snapshot="}
STAGING: dict[str, Any] = {"plane": "blob", "method": "DELETE", "path": "/vsa-staging/"}
REMOVALS = {MANAGED: [SNAPSHOT, ACCESS], STANDARD_VHD: [BLOB_SNAPSHOT], PREMIUM_VHD: [BLOB_SNAPSHOT, STAGING]}
KINDS = [MANAGED, pytest.param(STANDARD_VHD, marks=only_in_ci), PREMIUM_VHD]


def asked(world: World, kind: str) -> Questions:
    """The questions about a VM of one disk of this kind."""
    world.add_vm({"os": random_bytes(MIB, "os")}, kind=kind)
    for _ in range(2):
        assert world.back_up().result is Result.COMPLETED
    return Questions(world)


def left_behind(world: World, kind: str) -> tuple[BackupJob, Run]:
    """A run with all that it may leave, of a job that a server knows to be over."""
    job = world.job()
    run = begun(job)
    if kind == MANAGED:
        name, access = f"vsa-{run.id}-{run.disks[0].key}", {"access": "Read", "durationInSeconds": 3600}
        world.connection.compute.snapshots.begin_grant_access(world.group, name, access).result()
    return job, run


@pytest.mark.parametrize("by", ["the job", "a sweep"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_has_gone_already_is_removed_and_nothing_is_pending(world: World, kind: str, by: str) -> None:
    """As a request is answered that is repeated after a lost answer, or comes after another sweep's."""
    questions = asked(world, kind)
    job, run = left_behind(world, kind)
    gone = {"status": 404, "code": "ResourceNotFound", "when": "after", "times": None}
    with ExitStack() as faults:
        for removal in REMOVALS[kind]:
            faults.enter_context(world.fault("status", **removal, **gone))
        if by == "the job":
            assert job.release(run) == ()
        else:
            report = swept(world, {job.id: CRASHED})
            assert (report.pending, report.remaining) == ((), ())
            assert len(report.removed) == len(REMOVALS[kind])
    questions.ask(world.held(), first=First.JOB, is_dead=True)


@pytest.mark.parametrize("first", First)
@pytest.mark.parametrize(
    ("kind", "done"), [(MANAGED, 204), pytest.param(STANDARD_VHD, 202, marks=only_in_ci), (PREMIUM_VHD, 202)]
)
def test_what_azure_says_to_have_removed_is_pending_as_long_as_it_shows_it(
    world: World, kind: str, done: int, first: First
) -> None:
    questions = asked(world, kind)
    job, run = left_behind(world, kind)
    with ExitStack() as faults:
        for removal in REMOVALS[kind]:
            if removal is not ACCESS:
                faults.enter_context(world.fault("status", **removal, status=done, times=None))
        faults.enter_context(virtual_waits(world.control))
        report = swept(world, {job.id: CRASHED})
    assert {item.run for item in report.remaining} == {run.id}
    assert Thing.SNAPSHOT in {item.thing for item in report.remaining}
    assert any(line.startswith("still there: snapshot") for line in report.attention)
    assert any(line.startswith("cleanup pending: ") for line in report.attention)
    questions.ask(world.held(), first=first, is_dead=True)


KEPT = {
    "a lock": (MANAGED, 409, "ScopeLocked", "somebody must remove the lock"),
    "a policy": (MANAGED, 403, "RequestDisallowedByPolicy", "a policy keeps it, somebody must exempt it"),
    "a right": (MANAGED, 403, "AuthorizationFailed", "a right is missing, somebody must give it"),
    "a lease": (STANDARD_VHD, 412, "LeaseIdMissing", "somebody must break the lease"),
    "immutability": (PREMIUM_VHD, 409, "BlobImmutableDueToPolicy", "an immutability policy keeps it"),
}


@pytest.mark.parametrize("keeper", KEPT)
def test_what_is_kept_is_told_by_every_sweep_and_job_with_age_and_cost_until_it_goes(
    world: World, keeper: str
) -> None:
    kind, status, code, advice = KEPT[keeper]
    questions = asked(world, kind)
    job, run = left_behind(world, kind)
    # So small a snapshot costs nothing that could be read.
    price = Price(1024.0 * MIB / world.media.view().points[min(world.points)].point.disks[0].disk.size)
    removal = SNAPSHOT if kind == MANAGED else BLOB_SNAPSHOT
    refused = {"status": status, "code": code, "times": None}
    plan = planned(world, {job.id: CRASHED})[1]
    (made,) = (item.since for item in plan.leftovers if item.thing is Thing.SNAPSHOT)
    assert made
    with world.fault("status", **removal, **refused):
        for days in (3, 90, 4000):
            later = made + dt.timedelta(days=days, hours=1)
            report = swept(world, {job.id: CRASHED}, now=lambda at=later: at, price=price)
            assert any(advice in line and "cleanup pending for disk" in line for line in report.pending)
            (told,) = (line for line in report.attention if line.startswith("still there: snapshot"))
            assert f", {days} days old, " in told
            assert "about 1.00 USD a month" in told
            (total,) = (line for line in report.attention if line.startswith("cleanup pending: 1 thing"))
            assert f"{days} days old, about 1.00 USD a month" in total
        world.write("os", 0, random_bytes(EXTENT, "changed"))
        done = world.back_up()
        assert done.result is Result.COMPLETED_WITH_ERRORS
        assert world.reasons(done) == {"os": Reason.CBT}
        assert any(advice in alarm for alarm in done.alarms)
    report = swept(world)
    assert Thing.SNAPSHOT in things(report)
    assert run.id in {item.run for item in report.removed}
    questions.ask(world.held(), first=First.SWEEP, is_dead=False)


@pytest.mark.parametrize("kind", KINDS)
def test_azure_is_asked_to_make_nothing_before_the_intent_is_on_the_media(world: World, kind: str) -> None:
    questions = asked(world, kind)

    def refused(_number: int, method: str, name: str) -> tuple[Moment, Exception] | None:
        is_intent = method == "create" and name.endswith("/intent.json")
        return (Moment.BEFORE, MediaUnusable("the file system is full")) if is_intent else None

    store = FaultyStore(FolderStore(Path(world.media.location)), refused)
    since = world.control.requests()[-1]["number"]
    report = world.back_up(media=Media(store, write=True))
    assert "the file system is full" in report.vms[0].error
    made = [row for row in world.control.requests(since=since) if row["method"] == "PUT"]
    assert made == [], "nobody would know its name"
    questions.ask(world.held(), first=First.JOB, is_dead=False)
