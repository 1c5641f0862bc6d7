"""What Azure accepts and does later: snapshots that come when nobody waits for them any more, deletions that
go on, and deletions that are called done too early. (F03, F04, F12)"""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from tests.engine.job_process import in_another_process
from tests.engine.questions import First, Questions
from tests.engine.story import run_job, run_of
from tests.engine.test_cleanup_in_time import Doing
from tests.engine.test_killed import number_served
from tests.engine.test_sweep import swept
from tests.engine.waits import virtual_waits
from tests.engine.world import EXTENT, MANAGED, MIB, PREMIUM_VHD, World, random_bytes
from vsa.errors import RunStopped, SnapshotAwaited
from vsa.media.entries import JobEntry, Result
from vsa.model import Reason
from vsa.transfer.departures import LOOK_AGAIN

PUT: dict[str, Any] = {"plane": "arm", "method": "PUT", "path": r"/snapshots/vsa-[^/]+$"}
DELETE: dict[str, Any] = {"plane": "arm", "method": "DELETE", "path": r"/snapshots/vsa-[^/]+$"}
GET: dict[str, Any] = {"plane": "arm", "method": "GET", "path": r"/snapshots/vsa-[^/]+$"}
POLL: dict[str, Any] = {"plane": "arm", "method": "GET", "path": "(?i)/DiskOperations/"}
BLOB_DELETE: dict[str, Any] = {"plane": "blob", "method": "DELETE"}


def backed_up(world: World, kind: str = MANAGED) -> Questions:
    world.add_vm({"os": random_bytes(MIB, "os")}, kind=kind)
    for number in range(2):
        assert world.back_up().result is Result.COMPLETED
        world.write("os", number * EXTENT, random_bytes(512, number))
    return Questions(world)


def killed_with(world: World, request: dict[str, Any], **late: Any) -> None:
    """Kill a job when Azure has accepted this request of it, which takes effect later."""
    before = world.control.last_request()
    rule = world.control.add_fault("late", **request, **late)
    process = in_another_process(world, run_job)
    while not number_served(world, rule, since=before):
        assert process.is_alive(), "the job ended before the request it should die in"
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    world.control.clear_faults(rule)


def ours(world: World) -> set[str]:
    """Every snapshot of the world's disks that is no stranger's, as Azure shows them."""
    return world.all_snapshots - world.strangers


def states(world: World) -> list[str]:
    """The states of what is not our base."""
    rows = world.control.inventory()["snapshots"]
    return [row["state"] for row in rows if row["id"].lower() in ours(world) - world.bases]


def require_normal(world: World, report: JobEntry) -> None:
    assert (report.result, report.alarms) == (Result.COMPLETED, ())
    assert set(world.reasons(report).values()) == {Reason.CBT}


@pytest.mark.parametrize(("between", "then"), [(First.SWEEP, First.SWEEP), (First.JOB, First.JOB)])
def test_a_snapshot_that_comes_when_its_run_is_fenced_goes_with_the_next_sweep_or_job(
    world: World, between: First, then: First
) -> None:
    questions, held = backed_up(world), world.held()
    killed_with(world, PUT)
    assert ours(world) == world.bases, "nothing of it is to be seen"
    if between is First.SWEEP:
        report = swept(world)
        assert (len(report.plan.dead), report.removed, report.pending) == (1, (), ())
    else:
        require_normal(world, world.back_up())
    # The run is over for everybody, and nobody waits for what it had asked for.
    world.control.end_operations()
    assert len(ours(world) - world.bases) == 1
    questions.ask(held, first=then, is_dead=True)


def test_a_snapshot_that_comes_while_the_next_job_runs_goes_with_the_one_after(world: World) -> None:
    questions, held = backed_up(world), world.held()
    killed_with(world, PUT)
    # When the next job has cleared the disk and asks for its own.
    with world.fault("run", **PUT, operation="end_operations"):
        require_normal(world, world.back_up())
    assert len(ours(world) - world.bases) == 1
    questions.ask(held, first=First.JOB, is_dead=True)


@pytest.mark.parametrize("first", First)
def test_what_a_dead_run_is_still_making_is_neither_used_nor_forgotten(world: World, first: First) -> None:
    questions, held = backed_up(world), world.held()
    killed_with(world, PUT, shown=True)
    assert states(world) == ["Creating"]
    questions.ask(held, first=first, is_dead=True)
    world.control.end_operations()
    assert ours(world) == world.bases, "its creation was preempted"


@pytest.mark.parametrize("shown", [False, True])
def test_a_lost_answer_to_what_is_still_being_made_is_waited_for(world: World, shown: bool) -> None:
    """As a process has it that begins anew and finds what it had asked for in the making."""
    questions, held = backed_up(world), world.held()
    since = world.control.last_request()
    with (
        world.fault("cut", **PUT, when="after"),
        world.fault("late", **PUT, shown=shown, seconds=6),
        virtual_waits(world.control),
    ):
        require_normal(world, world.back_up())
    asked = [row for row in world.control.requests(since=since) if row["method"] == "PUT"]
    assert len(asked) == (1 if shown else 2), "what is to be seen is not asked for again"
    questions.ask(held, first=First.SWEEP, is_dead=False)


@pytest.mark.parametrize("shown", [False, True])
def test_azure_that_is_too_busy_to_say_how_a_creation_goes_has_not_refused_it(
    world: World, shown: bool
) -> None:
    questions, held = backed_up(world), world.held()
    since = world.control.last_request()
    with (
        world.fault("late", **PUT, shown=shown, seconds=8),
        world.fault("status", **POLL, status=429, retry_after=1, times=3),
        virtual_waits(world.control),
    ):
        require_normal(world, world.back_up())
    assert ours(world) == world.bases
    asked = [row for row in world.control.requests(since=since) if row["method"] == "PUT"]
    assert len(asked) == 1, "who asks again may be refused, for it is being made"
    questions.ask(held, first=First.JOB, is_dead=False)


def test_a_snapshot_that_is_called_made_before_it_is_shown_is_waited_for(world: World) -> None:
    questions, held = backed_up(world), world.held()
    since = world.control.last_request()
    with world.fault("late", **PUT, told=False, seconds=3), virtual_waits(world.control):
        require_normal(world, world.back_up())
    assert ours(world) == world.bases
    asked = [row for row in world.control.requests(since=since) if row["method"] == "PUT"]
    assert len(asked) == 1, "who asks again may be refused, for it is being made"
    questions.ask(held, first=First.JOB, is_dead=False)


@pytest.mark.parametrize("first", First)
def test_a_snapshot_that_is_called_made_and_never_shown_may_still_appear_and_the_release_says_so(
    world: World, first: First
) -> None:
    questions, held = backed_up(world), world.held()
    with world.fault("late", **PUT, told=False), virtual_waits(world.control) as waits:
        report = world.back_up()
    assert 60 < sum(waits) < 90
    assert report.result is Result.FAILED
    assert "Azure says that it is made and does not show it yet" in report.vms[0].error
    assert "deleted or moved" not in report.vms[0].error, "the disk is there"
    (alarm,) = report.alarms
    assert alarm.startswith("cleanup pending for disk ")
    assert "may still appear: Azure has accepted to make it" in alarm
    assert alarm.endswith("the next job or sweep deletes it")
    world.control.end_operations()
    assert len(ours(world) - world.bases) == 1
    questions.ask(held, first=first, is_dead=True)


def test_a_snapshot_that_appears_when_it_is_given_up_on_goes_with_its_run(world: World) -> None:
    """Its release finds it by name, and nothing is pending then."""
    backed_up(world)
    with world.fault("late", **PUT, told=False, seconds=60), virtual_waits(world.control) as waits:
        job = world.job()
        run = run_of(job)
        hidden = world.fault("status", **GET, status=404, code="NotFound", times=None)
        with hidden, pytest.raises(SnapshotAwaited):
            job.create_snapshots(run)
        assert sum(waits) > 60
        assert job.release(run) == ()
    assert ours(world) == world.bases


def test_a_snapshot_that_was_given_up_on_and_is_had_at_a_second_attempt_is_awaited_no_more(
    world: World,
) -> None:
    """As the task that makes a run's snapshots is retried."""
    backed_up(world)
    job = world.job()
    disks = job.identify_disks(job.discover().selected[0])
    run = job.new_run(disks)
    with virtual_waits(world.control):
        with world.fault("late", **PUT, told=False), pytest.raises(SnapshotAwaited):
            job.create_snapshots(run)
        world.control.end_operations()
        (snapshot,) = job.create_snapshots(run)
    proxies = job.assign_streams([disks], world.job().proxies)
    job.commit(run, [job.stream(job.order(run, run.disks[0], snapshot, None, proxies[0].proxy))])
    assert job.release(run) == ()
    assert ours(world) == world.bases


def test_a_disk_that_is_there_is_not_called_gone_where_its_snapshot_is_refused_as_not_found(
    world: World,
) -> None:
    backed_up(world)
    with world.fault("status", **PUT, status=404, code="ResourceNotFound"):
        report = world.back_up()
    assert "404 ResourceNotFound" in report.vms[0].error
    assert "deleted or moved" not in report.vms[0].error
    assert (report.alarms, ours(world)) == ((), world.bases), "nothing was accepted that might still come"


def test_a_snapshot_that_was_shown_and_is_not_for_a_moment_is_still_waited_for(world: World) -> None:
    questions, held = backed_up(world), world.held()
    # The first look after the PUT is the SDK's own, which shows it in state Creating.
    hidden = {"action": "status", "match": GET, "skip": 1, "times": 1, "status": 404, "code": "NotFound"}
    with (
        world.fault("late", **PUT, told=False, shown=True, seconds=12),
        world.fault("run", **PUT, operation="add_fault", arguments=hidden),
        virtual_waits(world.control),
    ):
        require_normal(world, world.back_up())
    world.control.clear_faults()
    questions.ask(held, first=First.JOB, is_dead=False)


def test_looks_for_what_is_deleted_that_azure_does_not_answer_alarm_nobody(world: World) -> None:
    backed_up(world)
    refusing = {"action": "status", "match": GET, "times": None, "status": 503, "code": "ServerBusy"}
    with (
        world.fault("run", **DELETE, operation="add_fault", arguments=refusing),
        virtual_waits(world.control) as waits,
    ):
        require_normal(world, world.back_up())
    world.control.clear_faults()
    assert sum(waits) < 2 * sum(LOOK_AGAIN) + 1
    assert ours(world) == world.bases


def test_a_creation_that_azure_ends_as_failed_for_its_own_reasons_is_asked_for_again(world: World) -> None:
    questions, held = backed_up(world), world.held()
    failed = {"status": "Failed", "error": {"code": "InternalExecutionError", "message": "try again"}}
    since = world.control.last_request()
    with (
        world.fault("late", **PUT, seconds=30),
        world.fault("status", **POLL, status=200, body=failed),
        world.fault("run", **PUT, skip=1, operation="end_operations", when="after"),
        virtual_waits(world.control),
    ):
        require_normal(world, world.back_up())
    asked = [row for row in world.control.requests(since=since) if row["method"] == "PUT"]
    assert len(asked) == 2
    questions.ask(held, first=First.SWEEP, is_dead=False)


@pytest.mark.parametrize("first", First)
def test_a_job_that_is_stopped_while_its_snapshot_is_made_leaves_it_to_whoever_comes_next(
    world: World, first: First
) -> None:
    questions, held = backed_up(world), world.held()
    job = world.job()
    run = run_of(job)
    since, asked = world.control.last_request(), world.control.add_fault("late", **PUT)
    making = Doing(lambda: job.create_snapshots(run))
    while not number_served(world, asked, since=since):
        time.sleep(0.01)
    job.stop.set()
    assert isinstance(making.ended(), RunStopped)
    assert job.release(run) == ()
    world.control.end_operations()
    assert len(ours(world) - world.bases) == 1
    questions.ask(held, first=first, is_dead=True)


@pytest.mark.parametrize("first", First)
def test_a_deletion_that_outlives_its_job_is_waited_for_by_whoever_comes_next(
    world: World, first: First
) -> None:
    questions, held = backed_up(world), world.held()
    killed_with(world, DELETE)
    assert states(world) == ["Deleting"]
    # It ends once somebody has asked for it again.
    with world.fault("run", **DELETE, operation="end_operations", when="after"):
        questions.ask(held, first=first, is_dead=True)


def test_a_deletion_that_nobody_may_ask_for_again_is_pending_and_stops_no_job(world: World) -> None:
    """Azure answers 409 Conflict where another request for the same thing goes on
    (github.com/cloudfoundry/bosh-azure-cpi-release, issue 173)."""
    questions, held = backed_up(world), world.held()
    killed_with(world, DELETE)
    (point,) = world.media.view().points.keys() - world.points.keys()
    (world.points[point],) = held.values()
    (going,) = ours(world) - world.bases
    name = going.rpartition("/")[2]
    with world.fault("status", method="DELETE", path=f"/{name}$", status=409, code="Conflict", times=None):
        report = world.back_up()
    assert report.result is Result.COMPLETED_WITH_ERRORS
    assert set(world.reasons(report).values()) == {Reason.CBT}
    (alarm,) = report.alarms
    assert alarm.startswith("cleanup pending for disk ")
    assert name in alarm
    world.control.end_operations()
    questions.ask(held, first=First.SWEEP, is_dead=False)


def test_a_base_that_somebody_is_deleting_is_no_base(world: World) -> None:
    backed_up(world)
    (base,) = (ref for _, ref in world.media.view().bases().values())
    with world.fault("late", **DELETE):
        world.connection.compute.snapshots.begin_delete(
            world.group, base.id.rpartition("/")[2], polling=False
        )
    with world.fault("run", **DELETE, operation="end_operations", when="after"):
        report = world.back_up()
    assert set(world.reasons(report).values()) == {Reason.CRC_BASE_GONE}
    assert (report.result, report.alarms) == (Result.COMPLETED, ())
    world.require_sound()


def test_a_job_looks_until_what_azure_says_to_have_deleted_is_gone(world: World) -> None:
    questions, held = backed_up(world), world.held()
    with (
        world.fault("late", **DELETE, told=False, seconds=sum(LOOK_AGAIN) - 0.5),
        virtual_waits(world.control) as waits,
    ):
        require_normal(world, world.back_up())
        assert ours(world) == world.bases, "the job has waited for it"
    assert sum(waits) >= sum(LOOK_AGAIN)
    questions.ask(held, first=First.SWEEP, is_dead=False)


def test_a_look_costs_one_request_for_each_deleted_snapshot(world: World) -> None:
    backed_up(world)
    (base,) = world.bases
    since = world.control.last_request()
    require_normal(world, world.back_up())
    path = [row for row in world.control.requests(since=since) if row["path"].lower() == base]
    deleted = next(row["number"] for row in path if row["method"] == "DELETE")
    after = [(row["method"], row["status"]) for row in path if row["number"] > deleted]
    assert after == [("GET", 404)]


@pytest.mark.parametrize("kind", [MANAGED, PREMIUM_VHD])
def test_a_job_says_what_azure_still_shows_with_its_age_and_cost(world: World, kind: str) -> None:
    questions, held = backed_up(world, kind), world.held()
    action, options = "late", {**DELETE, "told": False}
    if kind == PREMIUM_VHD:
        action, options = "status", {**BLOB_DELETE, "status": 202, "times": None}
    with world.fault(action, **options), virtual_waits(world.control) as waits:
        report = world.back_up()
    assert report.result is Result.COMPLETED_WITH_ERRORS
    (alarm,) = report.alarms
    assert alarm.startswith("cleanup pending for disk ")
    assert "Azure says that it is done, and still shows it" in alarm
    assert "; still there: snapshot " in alarm and " old, " in alarm and "USD a month" in alarm
    assert kind == MANAGED or "staging blob" in alarm
    assert sum(waits) < 2 * sum(LOOK_AGAIN) + 1, "nor does it wait for ever"
    world.control.end_operations()
    questions.ask(held, first=First.SWEEP, is_dead=False)


def test_a_base_that_azure_still_shows_is_not_called_released(world: World) -> None:
    questions = backed_up(world)
    (base,) = world.bases
    job = world.job(method="crc")
    discovery = job.discover()
    disks = [job.identify_disks(vm) for vm in job.identify_targets(discovery).vms]
    with world.fault("late", **DELETE, told=False), virtual_waits(world.control):
        let_go = job.release_bases(discovery, disks)
    assert (let_go.released, world.snapshots) == ((), {base})
    (pending,) = let_go.pending
    assert "still shows it; this base is not needed: the subclient's method is CRC" in pending
    world.control.end_operations()
    report = run_job(world.job(method="crc"))
    assert [item.reason for item in report.released] == ["the subclient's method is CRC"]
    world.back_up()
    questions.ask(world.held(), first=First.SWEEP, is_dead=False)


def test_a_sweep_waits_once_for_all_that_azure_still_shows(world: World) -> None:
    for name in ("one", "two", "three"):
        world.add_vm({name: random_bytes(MIB, name)})
    job = world.job()
    runs = [job.new_run(job.identify_disks(vm)) for vm in job.discover().selected]
    for run in runs:
        job.create_snapshots(run)
    named = [run.id for run in runs]
    with (
        world.fault("late", **DELETE, told=False, times=3),
        virtual_waits(world.control) as waits,
    ):
        report = swept(world, named=named)
    assert len([line for line in report.pending if "still shows it" in line]) == 3
    assert sum(waits) < 2 * sum(LOOK_AGAIN)
    world.control.end_operations()
    assert swept(world).pending == ()
    world.require_no_leftovers()


def test_a_hook_that_releases_a_whole_job_waits_once_for_all_of_its_runs(world: World) -> None:
    for name in ("one", "two", "three"):
        world.add_vm({name: random_bytes(MIB, name)})
    job = world.job()
    runs = [job.new_run(job.identify_disks(vm)) for vm in job.discover().selected]
    for run in runs:
        job.create_snapshots(run)
    with (
        world.fault("late", **DELETE, told=False, times=3),
        virtual_waits(world.control) as waits,
    ):
        released = job.release_all()
    assert len(released.pending) == 3
    assert sum(waits) < 2 * sum(LOOK_AGAIN)
    world.control.end_operations()
    assert job.release_all().pending == ()
    world.require_no_leftovers()
