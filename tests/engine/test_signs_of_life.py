"""A machine that never comes back: its runs fall silent, and a sweep clears them without anybody's word."""

from __future__ import annotations

import datetime as dt
import os
import threading
from typing import Any

import pytest

from tests.engine.canaries import Canaries
from tests.engine.job_process import in_another_process
from tests.engine.story import run_job
from tests.engine.test_leftovers import begun
from tests.engine.test_ownership import all_snapshots
from tests.engine.test_sweep import RUNNING
from tests.engine.test_sweep_command import quick_polls, swept
from tests.engine.world import MANAGED, MIB, PREMIUM_VHD, World, random_bytes
from tests.media.test_signs import newest
from vsa.cli import sweeping
from vsa.errors import RunStopped
from vsa.media.entries import Result
from vsa.media.signs import SILENT_AFTER
from vsa.model import ProcessName, Reason
from vsa.transfer import runs
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.dead_runs import JobState
from vsa.transfer.pending import Thing
from vsa.transfer.signs import EVERY_SECONDS
from vsa.transfer.sweep import Sweep
from vsa.transfer.sweep_report import SweepReport

LATER = SILENT_AFTER + dt.timedelta(hours=1)
PATIENCE = 2 * EVERY_SECONDS + 60

__all__ = ["quick_polls"]


def ahead() -> dt.datetime:
    return dt.datetime.now(dt.UTC) + LATER


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def before() -> dt.datetime:
    return dt.datetime.now(dt.UTC) - LATER


class Sleeper:
    """Waits by doing something else."""

    def __init__(self, act: Any = lambda: None) -> None:
        self.seconds: list[float] = []
        self._act = act

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self._act()


def sweep_once(
    world: World, sleeper: Sleeper, jobs: dict[str, JobState] | None = None, **options: Any
) -> SweepReport:
    """As `flows/sweep_leftovers.py` tells it."""
    options = {"now": ahead, "sleep": sleeper} | options
    sweep = Sweep(world.connection, world.media, **options)
    plan = sweep.plan(sweep.open_runs(), jobs, ())
    return sweep.carry_out_twice(plan, lambda _: jobs, ())


def vanish_on_another_machine(job: BackupJob) -> None:
    """As a job whose machine is gone: no process here is known to have ended."""
    elsewhere = ProcessName(host="elsewhere", boot="another", id=7, started="7")
    runs.this_process = lambda: elsewhere
    begun(job)
    os._exit(0)


def lost_with_its_machine(world: World) -> str:
    process = in_another_process(world, vanish_on_another_machine)
    process.join()
    assert process.exitcode == 0
    (run,) = (run for run in world.media.runs() if run not in world.media.view().committed)
    return run


@pytest.mark.parametrize("kind", [MANAGED, PREMIUM_VHD])
def test_what_a_lost_machine_left_goes_without_prefect_and_without_an_operator(
    world: World, kind: str
) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")}, kind=kind)
    world.back_up()
    run = lost_with_its_machine(world)
    sleeper = Sleeper()
    early = sweep_once(world, sleeper, now=lambda: dt.datetime.now(dt.UTC))
    assert (early.removed, sleeper.seconds) == ((), [])
    assert [item.intent.run for item in early.plan.left_alone] == [run]
    report = sweep_once(world, sleeper)
    assert sleeper.seconds == [PATIENCE]
    assert [item.intent.run for item in report.plan.dead] == [run]
    assert Thing.SNAPSHOT in {item.thing for item in report.removed}
    assert (report.remaining, report.attention) == ((), ())
    assert world.media.view().fenced == {run}
    world.require_no_leftovers()
    assert world.reasons(world.back_up()) == {"os": Reason.CBT}
    world.require_sound()


def test_a_first_look_touches_nothing_and_says_what_would_go(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    run = lost_with_its_machine(world)
    intent = world.media.intent(run)
    assert intent
    canaries = Canaries(world, intent.disks[0], run)
    there, head = all_snapshots(world), world.media.view().head
    sweep = Sweep(world.connection, world.media, now=ahead)
    plan = sweep.plan(sweep.open_runs(), None, ())
    assert (plan.dead, plan.leftovers, len(plan.doubted)) == ((), (), 1)
    assert f"silent: run {run} of VM" in plan.text()
    assert "would be removed then: snapshot vsa-" in plan.text()
    assert sweep.carry_out(plan).removed == ()
    assert (all_snapshots(world), world.media.view().head) == (there, head)
    sweep_once(world, Sleeper())
    canaries.require_alone()


def test_what_is_certain_goes_before_the_wait_for_the_silent_ones(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    silent = begun(world.job(now=before))
    world.add_vm({"os2": random_bytes(MIB, "os2")})
    over = world.job()
    run = over.new_run(over.identify_disks(over.discover().selected[1]))
    over.create_snapshots(run)
    left: list[Any] = []
    sleeper = Sleeper(lambda: left.append(all_snapshots(world)))
    report = sweep_once(world, sleeper, {over.id: JobState("Crashed", is_over=True)}, now=now)
    assert world.media.view().fenced == {run.id, silent.id}
    assert len(left) == 1
    assert len(left[0]) == 1
    assert {item.run for item in report.removed} == {run.id, silent.id}
    assert {item.intent.run for item in report.plan.dead} == {run.id, silent.id}
    world.require_no_leftovers()


@pytest.mark.parametrize("jobs", [None, {"job-1": RUNNING}])
def test_a_run_whose_clock_is_wrong_is_left_alone_as_long_as_it_gives_signs(
    world: World, jobs: dict[str, JobState] | None
) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    job = world.job()
    run = begun(job)
    report = sweep_once(world, Sleeper(job.signs.give), jobs)
    assert (report.removed, report.plan.dead, world.media.view().fenced) == ((), (), set())
    (left,) = report.plan.left_alone
    assert "a clock is wrong, here or on" in left.reason
    assert len(world.snapshots) == 1
    job.release(run)
    world.require_no_leftovers()


def test_a_run_wrongly_held_for_dead_stops_cleanly(world: World) -> None:
    """It slept for hours, say, and goes on as if nothing were."""
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    job = world.job()
    run = begun(job)
    (snapshot,) = job.create_snapshots(run)
    backup = job.stream(job.order(run, run.disks[0], snapshot, None, "proxy-a"))
    # Also a server that has not noticed anything is no proof of life.
    report = sweep_once(world, Sleeper(), {job.id: RUNNING})
    assert [item.intent.run for item in report.plan.dead] == [run.id]
    for step in (
        lambda: job.create_snapshots(run),
        lambda: job.stream(job.order(run, run.disks[0], snapshot, None, "proxy-a")),
        lambda: job.commit(run, [backup]),
    ):
        with pytest.raises(RunStopped, match="was fenced"):
            step()
    assert job.release(run) == ()
    world.require_no_leftovers()
    assert world.reasons(world.back_up()) == {"os": Reason.CBT}
    world.require_sound()


class SweptWhileReading:
    """A watcher that has the run swept when its first bytes have arrived."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._once = threading.Lock()

    def started(self, label: str, total_bytes: int) -> None: ...

    def advanced(self, count: int) -> None:
        if self._once.acquire(blocking=False):
            assert sweep_once(self._world, Sleeper()).plan.dead

    def finished(self) -> None: ...


@pytest.mark.parametrize("kind", [MANAGED, PREMIUM_VHD])
def test_a_job_whose_run_is_swept_while_it_reads_has_no_point_and_the_next_one_is_normal(
    world: World, kind: str
) -> None:
    world.add_vm({"os": random_bytes(16 * MIB, "os")}, kind=kind)
    report = run_job(world.job(progress=SweptWhileReading(world)))
    assert report.result is Result.FAILED
    assert world.media.view().points == {}
    world.require_no_leftovers()
    assert world.reasons(world.back_up()) == {"os": Reason.FULL_FIRST}
    world.require_sound()


def test_the_commands_name_it_and_clear_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    run = begun(world.job(now=before))
    sleeper = Sleeper()
    monkeypatch.setattr(sweeping, "sleep", sleeper)
    for command in ("leftovers", "sweep"):
        ran = swept(world, command)
        assert (ran.code, ran.document["leftovers"]) == (3, [])
        assert [item["run"] for item in ran.document["silent"]] == [run.id]
        assert [item["what"] for item in ran.document["doubted"]] == ["snapshot"]
    assert (sleeper.seconds, len(world.snapshots)) == ([], 1)
    ran = swept(world, "sweep", "--yes")
    assert (ran.code, sleeper.seconds) == (0, [PATIENCE])
    assert f"looking again in {PATIENCE // 60} min" in ran.err
    assert [item["run"] for item in ran.document["removed"]] == [run.id]
    assert ran.document["silent"] == ran.document["doubted"] == []
    world.require_no_leftovers()


def test_a_run_gives_its_first_sign_before_it_makes_anything_and_none_after_its_end(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    signs: list[bool] = []

    class Looks(BackupJob):
        def release(self, run: runs.Run) -> tuple[str, ...]:
            signs.append(newest(self.media, run.id) is not None)
            done = super().release(run)
            self.signs.give()
            sign = newest(self.media, run.id)
            signs.append(sign is not None and sign.number == 0)
            return done

    with world.fault("status", plane="arm", method="PUT", path="/snapshots/", status=403, code="Denied"):
        run_job(world.job(kind_of_job=Looks))
    assert signs == [True, True]
