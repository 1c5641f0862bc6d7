"""A job that is cut short cleans up for as long as it is let, however Azure or the media throttles; others do
the rest.

Prefect kills what has not ended thirty seconds after it was cancelled. (F04, F19, P07)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.engine.questions import First, Questions
from tests.engine.story import run_job, run_of
from tests.engine.test_leftovers import begun
from tests.engine.waits import Clock
from tests.engine.world import MANAGED, MIB, PREMIUM_VHD, World, random_bytes
from tests.media.faulty_store import FaultyStore, Moment
from vsa.azure.connection import AzureConnection
from vsa.azure.grants import Grants
from vsa.errors import AzureRefused, RunStopped, TryAgainLater
from vsa.media.entries import Result
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.media.retrying import RetryingStore
from vsa.model import DiskBackup
from vsa.stop import Stop
from vsa.transfer.backup_job import BackupJob, LetGo
from vsa.transfer.leftovers import Kept, tried
from vsa.transfer.runs import Run

WISH = 600
"""Seconds for which Azure wishes not to be asked again."""
DEAF_AFTER = 120
"""Seconds, on however busy a machine, after which somebody has not heard that the time is over."""
NO_TIME = "there was no time left for it, the next job or sweep does it: the time for cleaning up is over"

LIST: dict[str, Any] = {"plane": "arm", "method": "GET", "path": "/snapshots$"}
DELETE: dict[str, Any] = {"plane": "arm", "method": "DELETE", "path": "/snapshots/"}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "list": (MANAGED, LIST),
    "revoke": (MANAGED, {"plane": "arm", "method": "POST", "path": "(?i)/endGetAccess$"}),
    "delete": (MANAGED, DELETE),
    "poll": (MANAGED, {"plane": "arm", "method": "GET", "path": "(?i)/DiskOperations/"}),
    "list blobs": (PREMIUM_VHD, {"plane": "blob", "method": "GET", "query": "comp=list"}),
    "delete blob": (PREMIUM_VHD, {"plane": "blob", "method": "DELETE"}),
}


def own(connection: AzureConnection) -> AzureConnection:
    """One whose budgets nobody else waits for."""
    return replace(connection, clock=Clock())


def grant(world: World, run: Run) -> None:
    """Access to the run's snapshot, as its stream has it."""
    name = f"vsa-{run.id}-{run.disks[0].key}"
    access = {"access": "Read", "durationInSeconds": 3600}
    world.connection.compute.snapshots.begin_grant_access(world.group, name, access).result()


def backed_up_twice(world: World, kind: str = MANAGED) -> Questions:
    """A disk, and two jobs of it: what a job begins with every night."""
    world.add_vm({"os": random_bytes(MIB, "os")}, kind=kind)
    for _ in range(2):
        assert world.back_up().result is Result.COMPLETED
    return Questions(world)


class Doing:
    """Something that is done in a thread; a daemon, for who hears nothing must not keep the tests from
    ending."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._came_of_it: list[Any] = []
        self._thread = threading.Thread(target=self._do, daemon=True)
        self._thread.start()

    def _do(self) -> None:
        try:
            self._came_of_it.append(self._call())
        except Exception as error:  # noqa: BLE001
            self._came_of_it.append(error)

    def ended(self) -> Any:
        """What came of it, its error too, if it ends in time."""
        self._thread.join(DEAF_AFTER)
        assert not self._thread.is_alive(), "it is deaf, and killed with all that it has to say"
        return self._came_of_it[0]


@contextmanager
def throttled(world: World, which: dict[str, Any], call: Callable[[], Any]) -> Iterator[Doing]:
    """For the length of a block Azure takes no such request, which the call has met."""
    rule = world.control.add_fault("status", **which, status=429, retry_after=WISH, times=None)
    doing = Doing(call)
    deadline = time.monotonic() + DEAF_AFTER
    while not world.control.fired(rule):
        assert time.monotonic() < deadline, f"{which} was never asked: the test proves nothing"
        time.sleep(0.02)
    yield doing
    world.control.clear_faults(rule)


@pytest.mark.parametrize("call", CALLS)
def test_a_release_that_azure_throttles_ends_when_its_time_is_over_and_the_sweep_does_the_rest(
    world: World, call: str
) -> None:
    kind, which = CALLS[call]
    questions = backed_up_twice(world, kind)
    job = world.job()
    run = begun(job)
    if kind == MANAGED:
        grant(world, run)
    # As the hook has it, whose job has listed nothing yet.
    hook = world.job(connection=own(world.connection))
    with throttled(world, which, lambda: hook.release(run)) as releasing:
        hook.end_within(0)
        (pending,) = releasing.ended()
    assert NO_TIME in pending
    assert run.id in world.media.view().fenced, "nobody can commit what is being cleaned up"
    questions.ask(world.held(), first=First.SWEEP, is_dead=False)


def test_a_base_that_azure_does_not_let_go_in_time_is_pending_and_the_next_job_lets_it_go(
    world: World,
) -> None:
    questions = backed_up_twice(world)
    (base,) = world.bases
    job = world.job(connection=own(world.connection), method="crc")
    discovery = job.discover()
    disks = [job.identify_disks(vm) for vm in job.identify_targets(discovery).vms]
    with throttled(world, DELETE, lambda: job.release_bases(discovery, disks)) as releasing:
        job.end_within(0)
        let_go = releasing.ended()
    assert isinstance(let_go, LetGo)
    assert (let_go.released, world.snapshots) == ((), {base})
    assert NO_TIME in let_go.pending[0]
    assert "this base is not needed: the subclient's method is CRC" in let_go.pending[0]
    report = run_job(world.job(method="crc"))
    assert [item.reason for item in report.released] == ["the subclient's method is CRC"]
    assert world.snapshots == set()
    world.back_up()
    questions.ask(world.held(), first=First.SWEEP, is_dead=False)


def test_a_job_that_makes_room_under_throttling_hears_that_it_is_to_stop(world: World) -> None:
    questions = backed_up_twice(world)
    job = world.job(connection=own(world.connection))
    run = run_of(job)
    with throttled(world, LIST, lambda: job.create_snapshots(run)) as making:
        job.stop.set()
        error = making.ended()
    assert isinstance(error, RunStopped)
    assert world.media.intent(run.id) is None
    questions.ask(world.held(), first=First.JOB, is_dead=False)


def test_a_stream_that_is_told_to_stop_gives_back_its_access_only_as_long_as_it_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsa.azure.grants.REVOKE_SECONDS", 0.5)
    questions = backed_up_twice(world)
    (base,) = (ref for _, ref in world.media.view().bases().values())
    stop = Stop()

    def look_at_changes() -> None:
        grants = Grants(own(world.connection), guard=lambda: None, stop=stop)
        with grants, grants.base(base) as access:
            assert access.url

    with throttled(world, CALLS["revoke"][1], look_at_changes) as looking:
        stop.set()
        assert looking.ended() is None
    assert any(row["grant_open"] for row in world.control.inventory()["snapshots"] if row["id"] == base.id)
    questions.ask(world.held(), first=First.JOB, is_dead=True)


class BusyMedia:
    """A world's media in a service that, once it is busy, takes no call of one kind for `WISH` seconds."""

    def __init__(self, world: World) -> None:
        self._which = "none"
        self._asked = threading.Event()
        store = FaultyStore(FolderStore(world.folder / "media"), self._script)
        self.media = Media(RetryingStore(store, delays=[WISH]), write=True)

    def _script(self, _number: int, method: str, name: str) -> tuple[Moment, Exception] | None:
        if not f"{method} {name}".startswith(self._which):
            return None
        self._asked.set()
        return Moment.BEFORE, TryAgainLater("the media is busy")

    @contextmanager
    def busy_with(self, which: str, call: Callable[[], Any]) -> Iterator[Doing]:
        """For the length of a block it takes none of these, by method and name, which the call has met."""
        self._which = which
        doing = Doing(call)
        assert self._asked.wait(DEAF_AFTER), f"{which} was never asked: the test proves nothing"
        yield doing
        self._which = "none"


@pytest.mark.parametrize("which", ["read log/", "create log/"])
def test_a_release_that_the_media_keeps_waiting_ends_when_its_time_is_over(world: World, which: str) -> None:
    questions = backed_up_twice(world)
    busy = BusyMedia(world)
    job = world.job(media=busy.media)
    run = begun(job)
    with busy.busy_with(which, lambda: job.release(run)) as releasing:
        job.end_within(0)
        unfenced, uncleared = releasing.ended()
    assert "the time for cleaning up is over; before that: the media is busy" in unfenced
    assert NO_TIME in uncleared
    questions.ask(world.held(), first=First.SWEEP, is_dead=False)


def test_a_hook_that_the_media_keeps_waiting_ends_when_its_time_is_over(world: World) -> None:
    questions = backed_up_twice(world)
    busy = BusyMedia(world)
    job = world.job(media=busy.media)
    run = begun(job)
    with busy.busy_with("read runs/", job.release_all) as releasing:
        job.end_within(0)
        released = releasing.ended()
    assert released.intents == ()
    assert "before that: the media is busy" in released.pending[0]
    job.release_all()
    assert run.id in world.media.view().fenced, "without a minute more, now that the media answers"
    questions.ask(world.held(), first=First.SWEEP, is_dead=False)


def streamed(job: BackupJob, run: Run, made: Any) -> list[DiskBackup]:
    return [
        job.stream(job.order(run, disk, snapshot, None, job.proxies[0].name))
        for disk, snapshot in zip(run.disks, made, strict=True)
    ]


WORK: dict[str, tuple[str, Callable[[BackupJob, Run, Any], Any]]] = {
    "snapshots": ("create runs/", lambda job, run, _: job.create_snapshots(run)),
    "stream": ("create runs/", streamed),
    "commit": ("create log/", lambda job, run, made: job.commit(run, made)),
}


@pytest.mark.parametrize("work", WORK)
def test_work_that_the_media_keeps_waiting_hears_that_it_is_to_stop(world: World, work: str) -> None:
    which, call = WORK[work]
    questions = backed_up_twice(world)
    world.write("os", 0, random_bytes(MIB, "changed"))
    busy = BusyMedia(world)
    job = world.job(media=busy.media)
    run = run_of(job)
    made: Any = None
    if work != "snapshots":
        made = job.create_snapshots(run)
    if work == "commit":
        made = streamed(job, run, made)
    with busy.busy_with(which, lambda: call(job, run, made)) as working:
        job.stop.set()
        error = working.ended()
    assert isinstance(error, RunStopped)
    assert "before that: the media is busy" in str(error)
    assert job.release(run) == ()
    questions.ask(world.held(), first=First.JOB, is_dead=False)


def test_a_stop_of_the_work_keeps_nothing_from_being_cleaned_up(world: World) -> None:
    questions = backed_up_twice(world)
    job = world.job()
    run = begun(job)
    job.stop.set()
    assert job.release(run) == ()
    world.require_no_leftovers()
    questions.ask(world.held(), first=First.JOB, is_dead=False)


def test_when_no_time_is_left_runs_that_are_over_are_told_in_one_line_and_open_ones_are_fenced(
    world: World,
) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.add_vm({"other": random_bytes(MIB, "other")})
    job = world.job()
    assert run_job(job).result is Result.COMPLETED
    left = begun(job)
    job.end_within(0)
    while not job._last.is_set:
        time.sleep(0.01)
    released = job.release_all()
    assert len(released.intents) == 3
    assert [NO_TIME in line for line in released.pending] == [True, False]
    assert released.pending[1] == "no time was left to look again at 2 runs that are over: a sweep does"
    assert left.id in world.media.view().fenced


def test_what_azure_said_is_told_although_there_was_no_time_for_the_rest() -> None:
    stop = Stop("the time is over")
    stop.set_in(0.1)
    lock = AzureRefused("a lock is on it", code="ScopeLocked")
    kept = tried(lambda: Kept(refused=[TryAgainLater("busy", retry_after=60), lock]), stop=stop)
    assert kept.errors[0] is lock
    assert {type(error) for error in kept.errors} == {AzureRefused, RunStopped, TryAgainLater}
