"""A sweep removes what runs that are dead, or ended badly, left in Azure: all of it and nothing else."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from azsim.control import Control
from tests.engine.job_process import in_another_process
from tests.engine.test_killed import DiesAfterCommit, kill_at_commit, two_disks
from tests.engine.test_leftovers import begun, begun_by_a_process_that_ends
from tests.engine.test_ownership import all_snapshots, snapshot_by_others
from tests.engine.world import MANAGED, MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from tests.media.faulty_store import FaultyStore, no_fault
from vsa.errors import BadRequest, RunStopped
from vsa.media import layout
from vsa.media.entries import DoomEntry
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.media.witness import Witness
from vsa.model import Reason
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.dead_runs import ASK_AFTER, JobState
from vsa.transfer.leftovers import fence
from vsa.transfer.pending import Thing
from vsa.transfer.sweep import Sweep
from vsa.transfer.sweep_report import SweepPlan, SweepReport

RUNNING = JobState("Running", is_over=False)
CRASHED = JobState("Crashed", is_over=True)


def planned(
    world: World, jobs: Mapping[str, JobState] | None = None, named: Collection[str] = (), **options: Any
) -> tuple[Sweep, SweepPlan]:
    sweep = Sweep(**{"connection": world.connection, "media": world.media, **options})
    return sweep, sweep.plan(sweep.open_runs(), jobs or {}, named)


def swept(world: World, *given: Any, **options: Any) -> SweepReport:
    """A whole sweep, as `flows/sweep_leftovers.py` tells it."""
    sweep, plan = planned(world, *given, **options)
    return sweep.carry_out(plan)


def things(report: SweepReport) -> list[Thing]:
    return sorted(item.thing for item in report.removed)


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        (MANAGED, [Thing.SNAPSHOT]),
        (STANDARD_VHD, [Thing.SNAPSHOT]),
        (PREMIUM_VHD, [Thing.SNAPSHOT, Thing.STAGING_BLOB]),
    ],
)
def test_what_an_ended_process_left_goes_and_its_run_can_never_commit(
    world: World, kind: str, left: list[Thing]
) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")}, kind=kind)
    begun_by_a_process_that_ends(world)
    report = swept(world)
    assert things(report) == left
    assert report.attention == ()
    assert report.plan.given_up_jobs == ("job-1",)
    (dead,) = report.plan.dead
    assert "has ended" in dead.reason
    assert world.media.view().fenced == {dead.intent.run}
    world.require_no_leftovers()
    assert swept(world).plan.leftovers == ()
    assert world.reasons(world.back_up()) == {"os": Reason.FULL_FIRST}


def test_a_plan_touches_nothing(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    begun_by_a_process_that_ends(world)
    before, head = all_snapshots(world), world.media.view().head
    reader = Media.open(world.media.location)
    since = world.control.last_request()
    _, plan = planned(world, media=reader)
    assert [item.thing for item in plan.leftovers] == [Thing.SNAPSHOT]
    assert "would be removed: snapshot vsa-" in plan.text()
    assert all_snapshots(world) == before
    assert world.media.view().head == head
    methods = {row["method"] for row in world.control.requests(since=since) if row["plane"] == "arm"}
    assert methods <= {"GET"}


@pytest.mark.parametrize("jobs", [{}, {"job-1": RUNNING}])
def test_a_run_that_may_go_on_is_left_alone_and_said(world: World, jobs: dict[str, JobState]) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    job = world.job()
    run = begun(job)
    before = all_snapshots(world)
    report = swept(world, jobs)
    assert all_snapshots(world) == before
    assert world.media.view().fenced == set()
    (left,) = report.plan.left_alone
    assert left.intent.run == run.id
    assert report.attention == ()
    assert "Running" in left.reason if jobs else left.reason.startswith("its last sign of life is ")
    job.stream(job.order(run, run.disks[0], job.create_snapshots(run)[0], None, "proxy-a"))
    job.release(run)


def test_a_run_of_a_job_that_is_over_is_dead_and_stops_cleanly_if_it_was_not(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    job = world.job()
    run = begun(job)
    (snapshot,) = job.create_snapshots(run)
    backup = job.stream(job.order(run, run.disks[0], snapshot, None, "proxy-a"))
    report = swept(world, {"job-1": CRASHED})
    assert things(report) == [Thing.GRANT, Thing.SNAPSHOT]
    assert "is over: Crashed" in report.plan.dead[0].reason
    with pytest.raises(RunStopped, match="was fenced"):
        job.commit(run, [backup])
    world.require_no_leftovers()


def test_the_streams_of_a_job_of_which_a_run_goes_on_are_not_given_up(world: World) -> None:
    for disk in ("one", "two"):
        world.add_vm({disk: random_bytes(MIB, disk)})
    job = world.job()
    runs = [job.new_run(job.identify_disks(vm)) for vm in job.discover().selected]
    for run in runs:
        job.create_snapshots(run)
    report = swept(world, named=[runs[0].id])
    assert [item.run for item in report.removed] == [runs[0].id]
    assert report.plan.given_up_jobs == ()
    job.release(runs[1])


def test_a_run_that_ends_while_the_sweep_looks_is_no_dead_run(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    job = world.job()
    run = begun(job)
    sweep = Sweep(world.connection, world.media)
    found = sweep.open_runs()
    assert job.release(run) == ()
    plan = sweep.plan(found, {"job-1": CRASHED}, ())
    assert (plan.dead, plan.leftovers) == ((), ())


def test_an_operator_names_what_nothing_else_tells(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    run = begun(world.job())
    with pytest.raises(BadRequest, match=f"no open run other: open are {run.id}"):
        swept(world, named=["other"])
    report = swept(world, named=[run.id])
    assert things(report) == [Thing.SNAPSHOT]
    assert swept(world, named=[run.id]).plan.dead == (), "a run that is over may be named again"
    world.require_no_leftovers()


def test_a_run_whose_flow_run_goes_on_is_not_swept_though_it_is_named(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    run = begun(world.job())
    report = swept(world, {"job-1": RUNNING}, named=[run.id])
    assert len(all_snapshots(world)) == 1
    assert report.removed == ()
    (asked,) = report.attention
    assert "cancel it first" in asked


def test_what_cannot_be_judged_for_long_asks_for_somebody(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    run = begun(world.job())
    # As a run of an older version, which gave no signs of life.
    (Path(world.media.location) / layout.sign(run.id, 0)).unlink()
    later = dt.datetime.now(dt.UTC) + ASK_AFTER + dt.timedelta(hours=1)
    (asked,) = swept(world, now=lambda: later).attention
    assert "2 days old" in asked and "name the run" in asked
    assert len(all_snapshots(world)) == 1


@pytest.mark.parametrize("kind", [MANAGED, PREMIUM_VHD])
def test_a_job_killed_after_its_commit_keeps_the_point_and_its_base_alone(world: World, kind: str) -> None:
    two_disks(world, kind)
    held = next(iter(world.held().values()))
    kill_at_commit(world, DiesAfterCommit)
    report = swept(world)
    assert report.plan.dead == ()
    assert Thing.SNAPSHOT in things(report)
    world.points[max(world.media.view().points)] = held
    world.require_sound()
    assert set(world.reasons(world.back_up()).values()) == {Reason.CBT}


def test_what_azure_would_not_delete_is_said_with_its_age_and_goes_with_the_next_sweep(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    begun_by_a_process_that_ends(world)
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=400)
    with world.fault(
        "status", method="DELETE", path="/snapshots/vsa-", status=409, code="ScopeLocked", times=None
    ):
        report = swept(world, now=lambda: later)
    assert report.removed == ()
    assert any("cleanup pending" in line and "ScopeLocked" in line for line in report.attention)
    told = r"^still there: snapshot vsa-.* \d+ days old, 1 MiB, below 0.01 USD a month\)$"
    assert any(re.search(told, line) for line in report.attention)
    assert world.media.view().fenced, "the run is over, whatever Azure says"
    assert things(swept(world)) == [Thing.SNAPSHOT]
    world.require_no_leftovers()


def test_things_that_only_look_like_ours_are_never_touched(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    begun_by_a_process_that_ends(world)
    (intent,) = (item for item in planned(world)[0].open_runs().intents)
    disk = intent.disks[0]
    name = intent.snapshots[0].rpartition("/")[2]
    tags = {"vsa-media": world.media.id, "vsa-run": intent.run, "vsa-disk": disk.key}
    world.control.advance_clock(601)
    snapshot_by_others(world, f"{name}x", tags)
    snapshot_by_others(world, f"x{name}", tags)
    snapshot_by_others(world, f"vsa-{'0' * 16}-{disk.key}", tags | {"vsa-media": "another-media"})
    snapshot_by_others(world, f"vsa-{intent.run}-another-disk", tags | {"vsa-disk": "another-disk"})
    snapshot_by_others(world, "before-the-upgrade", {})
    theirs = {item for item in all_snapshots(world) - world.bases if not item.endswith(f"/{name}")}
    assert len(theirs) == 5
    report = swept(world)
    assert [item.name for item in report.removed] == [name]
    assert all_snapshots(world) == theirs | world.bases


def test_a_snapshot_of_a_run_that_the_media_does_not_know_stays_and_is_said(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    (disk,) = world.media.view().points[min(world.points)].point.disks
    tags = {"vsa-media": world.media.id, "vsa-run": "0" * 16, "vsa-disk": disk.disk.key}
    snapshot_by_others(world, f"vsa-{'0' * 16}-{disk.disk.key}", tags)
    before = all_snapshots(world)
    report = swept(world)
    assert all_snapshots(world) == before
    (asked,) = report.attention
    assert f"knows nothing of its run {'0' * 16}" in asked


def test_the_base_that_a_live_run_reads_keeps_its_grant(world: World) -> None:
    """A comparison asks for access to the base of an earlier run, which is over."""
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    job = world.job()
    run = begun(job)
    (base,) = (ref for _, ref in world.media.view().bases().values())
    body = {"access": "Read", "durationInSeconds": 3600}
    snapshots = world.connection.compute.snapshots
    snapshots.begin_grant_access(world.group, base.id.rpartition("/")[2], body).result()
    report = swept(world, {run.job: RUNNING})
    assert report.removed == ()
    granted = [row["id"].lower() for row in world.control.inventory()["snapshots"] if row["grant_open"]]
    assert base.id.lower() in granted
    job.release(run)
    world.require_no_leftovers()


def test_what_a_fenced_run_left_goes_though_a_run_may_go_on_on_its_disk(world: World) -> None:
    """All of it but access to the base, which the run that goes on may have asked for."""
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    job = world.job()
    going_on = begun(job)
    ended = begun(world.job())
    fence([ended.id], "the test says so", world.media)
    (base,) = (ref for _, ref in world.media.view().bases().values())
    body = {"access": "Read", "durationInSeconds": 3600}
    snapshots = world.connection.compute.snapshots
    snapshots.begin_grant_access(world.group, base.id.rpartition("/")[2], body).result()
    report = swept(world)
    assert [run.intent.run for run in report.plan.left_alone] == [going_on.id]
    assert [(item.run, item.thing) for item in report.removed] == [(ended.id, Thing.SNAPSHOT)]
    assert report.attention == ()
    granted = [row["id"].lower() for row in world.control.inventory()["snapshots"] if row["grant_open"]]
    assert granted.count(base.id.lower()) == 1
    job.release(going_on)
    world.require_no_leftovers()


def test_disks_of_another_subscription_are_left_to_a_sweep_of_that_one(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    begun_by_a_process_that_ends(world)
    other = dataclasses.replace(world.connection, subscription_id="00000000-0000-0000-0000-00000000beef")
    report = swept(world, connection=other)
    assert (report.plan.dead, report.plan.left_alone, report.plan.disks) == ((), (), 0)
    assert world.media.view().fenced == set()
    assert things(swept(world)) == [Thing.SNAPSHOT]


def test_an_intent_that_cannot_be_read_is_said_and_keeps_nothing_else_from_being_swept(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    run = begun(world.job())
    begun_by_a_process_that_ends(world)
    spoilt = Path(world.media.location) / layout.intent(run.id)
    spoilt.chmod(0o600)
    spoilt.write_bytes(spoilt.read_bytes()[:-20])
    report = swept(world)
    assert things(report) == [Thing.SNAPSHOT], report.text()
    (asked,) = report.attention
    assert run.id in asked
    assert len(all_snapshots(world)) == 1
    world.media.append(DoomEntry(runs=(run.id,), reason="the test has ended"))


def test_the_snapshots_of_a_resource_group_are_listed_once(world: World) -> None:
    world.add_vm({f"disk-{number}": random_bytes(MIB, number) for number in range(3)})
    world.add_vm({"other": random_bytes(MIB, "other")})
    world.back_up()
    since = world.control.last_request()
    _, plan = planned(world)
    assert plan.disks == 4
    asked = [row for row in world.control.requests(since=since) if row["path"].endswith("/snapshots")]
    first_pages = [row for row in asked if "skiptoken" not in row["query"]]
    assert len(first_pages) == 1


def test_a_plan_asks_the_log_once_for_all_snapshots_that_one_job_made(world: World) -> None:
    world.add_vm({name: random_bytes(MIB, name) for name in ("os", "logs", "data")})
    world.back_up()
    world.back_up()
    assert len(world.snapshots) == 3
    store = FaultyStore(FolderStore(Path(world.media.location)), no_fault)
    _, plan = planned(world, media=Media(store, write=False))
    assert plan.leftovers == () and plan.troubles == ()
    rows = [
        row["tags"]
        for row in world.control.inventory()["snapshots"]
        if row["id"].lower() not in world.strangers
    ]
    (mark,) = {tags["vsa-witness"] for tags in rows if tags.get("vsa-media") == world.media.id}
    entry = layout.slot(Witness.parse(mark).slot)
    assert store.calls.count(("read", entry)) == 2, "once to know the log, once to compare it with the mark"


def test_two_sweeps_at_once_end_as_one(world: World, control: Control) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    begun_by_a_process_that_ends(world)
    first, plan = planned(world)
    second, same = planned(world, media=Media.open(world.media.location, write=True))
    for sweep, mine in ((first, plan), (second, same)):
        assert [line for run in mine.dead for line in sweep.release(run, mine.in_use)] == []
        assert sweep.report(mine, ()).remaining == ()
    world.require_no_leftovers()


def vanish_in_the_middle_of_a_sweep(job: BackupJob) -> None:
    """As a sweep that dies when it has fenced and not yet deleted."""
    sweep = Sweep(job.connection, job.media)
    plan = sweep.plan(sweep.open_runs(), {}, ())
    job.media.append(DoomEntry(runs=tuple(run.intent.run for run in plan.dead), reason="swept"))
    os._exit(0)


def test_a_sweep_that_was_killed_is_finished_by_the_next(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    begun_by_a_process_that_ends(world)
    process = in_another_process(world, vanish_in_the_middle_of_a_sweep)
    process.join()
    assert len(all_snapshots(world)) == 1
    report = swept(world)
    assert (report.plan.dead, things(report)) == ((), [Thing.SNAPSHOT])
    world.require_no_leftovers()
