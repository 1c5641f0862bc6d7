"""The sweep on a Prefect server: what a killed job left goes, what a running one owns stays."""

from __future__ import annotations

import datetime as dt
import signal
import sys
from collections.abc import Callable
from functools import partial
from uuid import UUID, uuid4

import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Crashed, Running, Scheduled

from blocks.subclient import BackupSubclient
from flows.sweep_leftovers import main, sweep_leftovers
from tasks.flow_runs import states_if_known
from tasks.witness import keep_witness
from tests.engine.canaries import Canaries
from tests.engine.world import BETWEEN_JOBS, MIB
from tests.flows.job_process import Job
from tests.flows.prefect_server import PrefectServer, flow_run_of, messages_of, wait_for
from tests.flows.site import Site, managed
from tests.flows.test_backup_process import started_reading
from tests.media.test_log import seen
from tests.soak import only_in_ci
from vsa.errors import RunStopped
from vsa.media.entries import Result
from vsa.media.signs import SILENT_AFTER
from vsa.model import Reason
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.runs import Run
from vsa.transfer.signs import EVERY_SECONDS
from vsa.transfer.sweep import Sweep

PATIENCE = 2 * EVERY_SECONDS + 60
"""Seconds from the first look of a sweep to the second."""


def artifact_of(site: Site) -> str:
    """The newest report, as the UI shows it, without the marks that keep names from being markup."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts()
    mine = [item for item in found if item.key == f"sweep-{site.name}"]
    return str(max(mine, key=lambda item: item.created).data).replace("\\", "")


@flow(name="job-of-a-test")
def job_of_a_test() -> None:
    """A flow run whose state a test sets."""


@task
def task_of_a_test() -> None:
    """What a child run hangs on."""


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def begun(site: Site, *, clock: Callable[[], dt.datetime] = now) -> tuple[BackupJob, Run, UUID]:
    """A job that has its snapshots and goes no further, and its flow run, which is running."""
    with get_client(sync_client=True) as client:
        flow_run = client.create_flow_run(job_of_a_test, state=Running())
    block = BackupSubclient.named(site.name)
    job = BackupJob(
        str(flow_run.id),
        subclient=block.settings,
        connection=block.subscription.connection(),
        media=block.media.open(write=True),
        proxies=(),
        scratch=site.folder,
        now=clock,
    )
    run = job.new_run(job.identify_disks(job.discover().selected[0]))
    job.create_snapshots(run)
    return job, run, flow_run.id


def child_of(client: SyncPrefectClient, job: UUID) -> UUID:
    """A stream of the job that waits for its proxy."""
    task_run = client.create_task_run(task_of_a_test, job, dynamic_key="0")
    return client.create_flow_run(job_of_a_test, parent_task_run_id=task_run.id, state=Scheduled()).id


def test_the_state_of_its_flow_run_decides_over_a_run_that_nothing_else_tells_of(site: Site) -> None:
    site.add_vm("web", [managed("web-os"), managed("web-data")])
    site.save_blocks()
    job, run, flow_run_id = begun(site)
    before, head = site.snapshots, site.media.view().head
    assert len(before) == 2
    running = sweep_leftovers(site.name, site.name, runs=(run.id,), return_state=True)
    assert running.name == "Completed with errors", running.message
    assert "is not over: Running; it was named" in running.message
    assert (site.snapshots, site.media.view().head) == (before, head)

    with get_client(sync_client=True) as client:
        stream = child_of(client, flow_run_id)
        client.set_flow_run_state(flow_run_id, Crashed(), force=True)
    dry = sweep_leftovers(site.name, site.name, dry_run=True, return_state=True)
    assert dry.name == "Completed", dry.message
    assert f"would be fenced: run {run.id} of VM web" in dry.message
    assert dry.message.count("would be removed: snapshot vsa-") == 2
    assert "## Would be removed" in artifact_of(site)
    assert (site.snapshots, site.media.view().head) == (before, head)

    state = sweep_leftovers(site.name, site.name, return_state=True)
    assert state.name == "Completed", state.message
    assert (site.snapshots, site.media.view().fenced) == ([], {run.id})
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(stream).state_name == "Cancelled", "a stream that nobody waits for"
    shown = artifact_of(site)
    assert f"| {run.id} | web | " in shown and "is over: Crashed" in shown
    assert all(f"| snapshot | {row['name']} | web-" in shown for row in before)
    deleted = f"snapshot of run {run.id} deleted"
    wait_for("the log", lambda: sum(deleted in line for line in messages_of(flow_run_of(state))) == 2)
    with pytest.raises(RunStopped, match="was fenced"):
        job.create_snapshots(run)


def test_the_next_job_cleans_up_after_a_run_whose_flow_run_is_over(site: Site) -> None:
    """Nothing else tells of it, for its process, this one, lives."""
    site.add_vm("web", [managed("web-os"), managed("web-data")])
    site.save_blocks()
    _, run, flow_run_id = begun(site)
    left = {row["id"].lower() for row in site.snapshots}
    site.control.advance_clock(BETWEEN_JOBS)
    assert site.back_up().name == "Completed"
    assert {row["id"].lower() for row in site.snapshots} == left | site.bases
    assert site.media.view().fenced == set()

    with get_client(sync_client=True) as client:
        stream = child_of(client, flow_run_id)
        client.set_flow_run_state(flow_run_id, Crashed(), force=True)
    site.control.advance_clock(BETWEEN_JOBS)
    assert site.back_up().name == "Completed"
    assert site.media.view().fenced == {run.id}
    site.require_only_bases()
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(stream).state_name == "Cancelled", "a stream that nobody waits for"


def test_what_the_server_says_of_jobs_counts_if_it_knows_them(prefect_server: PrefectServer) -> None:
    with get_client(sync_client=True) as client:
        runs = [client.create_flow_run(job_of_a_test, state=Running()).id for _ in range(3)]
        client.set_flow_run_state(runs[1], Cancelling())
        client.set_flow_run_state(runs[2], Crashed(), force=True)
    running, cancelling, crashed = map(str, runs)
    said = states_if_known([running, cancelling, crashed, str(uuid4()), "no flow run"])
    assert {job: (state.name, state.is_over) for job, state in said.items()} == {
        running: ("Running", False),
        cancelling: ("Cancelling", True),
        crashed: ("Crashed", True),
    }
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert states_if_known([running]) == {}, "a server that does not answer says nothing"


def test_a_job_whose_machine_died_while_it_was_cancelled_is_over(site: Site) -> None:
    """Its flow run stays as it is: neither its worker ends it nor the missing heartbeat."""
    site.add_vm("web", [managed("web-os")])
    site.save_blocks()
    _, run, flow_run_id = begun(site)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run_id, Cancelling())
        client.set_flow_run_state(flow_run_id, Crashed(message="its heartbeat stopped"))
        assert client.read_flow_run(flow_run_id).state_name == "Cancelling"
    state = sweep_leftovers(site.name, site.name, return_state=True)
    assert state.name == "Completed", state.message
    assert (site.snapshots, site.media.view().fenced) == ([], {run.id})


class Sweeper:
    """The sweeps of a test: whose clock is `ahead`, and who do something else instead of waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
        self.ahead = dt.timedelta(0)
        self.waits: list[float] = []
        self._site = site
        made = partial(Sweep, now=lambda: now() + self.ahead, sleep=self._wait)
        monkeypatch.setattr("flows.sweep_leftovers.Sweep", made)
        self.meanwhile: Callable[[], object] = lambda: None

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.meanwhile()

    def __call__(self, **options: bool) -> str:
        """What a sweep says."""
        state = sweep_leftovers(self._site.name, self._site.name, return_state=True, **options)
        assert state.is_completed(), state.message
        return str(state.message)


def test_a_job_that_gives_no_sign_of_life_is_swept_after_the_grace_though_the_server_calls_it_running(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process hangs, say, or its machine is gone and the server has not noticed."""
    site.add_vm("web", [managed("web-os"), managed("web-data")])
    site.save_blocks()
    assert site.back_up().name == "Completed"
    bases = site.bases
    site.control.advance_clock(BETWEEN_JOBS)
    began = now()
    job, run, flow_run_id = begun(site, clock=lambda: began)
    canaries = Canaries(site, run.disks[0], run.id)
    with get_client(sync_client=True) as client:
        stream = child_of(client, flow_run_id)
    there, head = site.snapshots, site.media.view().head
    assert len(there) == 4
    sweep = Sweeper(monkeypatch, site)

    def require_untouched() -> None:
        assert (site.snapshots, site.media.view().head) == (there, head)
        canaries.require_untouched()

    sweep.ahead = SILENT_AFTER - dt.timedelta(minutes=10)
    assert f"left alone: run {run.id} of VM web" in sweep()
    require_untouched()
    assert sweep.waits == [], "within the grace nobody doubts it"

    sweep.ahead = SILENT_AFTER + dt.timedelta(minutes=10)
    said = sweep(dry_run=True)
    assert f"silent: run {run.id} of VM web" in said
    assert said.count("would be removed then: snapshot vsa-") == 2
    require_untouched()
    assert sweep.waits == [], "nothing is decided"

    sweep.meanwhile = job.signs.give
    assert "it goes on, though its last sign of life is 3 hours old" in sweep()
    require_untouched()

    job.signs.end(run.id)
    sweep.meanwhile = require_untouched
    said = sweep()
    assert sweep.waits == [PATIENCE, PATIENCE]
    assert "and a second look found no other" in said
    assert (site.bases, site.media.view().fenced) == (bases, {run.id})
    site.require_only_bases()
    canaries.require_untouched()
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(stream).state_name == "Cancelled", "a stream that nobody waits for"
    with pytest.raises(RunStopped, match="was fenced"):
        job.create_snapshots(run)

    site.control.advance_clock(BETWEEN_JOBS)
    assert site.back_up().name == "Completed"
    assert {disk.reason for vm in site.reports[-1].vms for disk in vm.disks} == {Reason.CBT}
    site.require_restorable(site.points_of("web")[-1])
    site.require_only_bases()
    canaries.require_untouched()


@only_in_ci
def test_a_running_job_is_left_alone_and_what_it_left_when_killed_goes(
    site: Site, prefect_server: PrefectServer
) -> None:
    site.add_vm("web", [managed("web-os", size=64 * MIB), managed("web-data", size=64 * MIB)])
    site.save_blocks()
    slow = site.control.add_fault("delay", seconds=1, plane="blob", header="x-ms-range", times=None)
    job = Job(site, prefect_server, with_server=True)
    try:
        wait_for("the job to read", lambda: job.lives() and site.control.fired(slow) >= 1, seconds=90)
        (run,) = site.media.runs()
        assert sweep_leftovers(site.name, site.name, return_state=True).name == "Completed"
        assert (len(site.snapshots), site.media.view().fenced, job.lives()) == (2, set(), True)
        job.send(signal.SIGKILL)
        assert job.wait() == -signal.SIGKILL
    finally:
        job.end()
    site.control.clear_faults()
    state = sweep_leftovers(site.name, site.name, return_state=True)
    assert state.name == "Completed", state.message
    assert "has ended" in state.message
    assert (site.snapshots, site.media.view().fenced) == ([], {run})
    assert site.back_up().name == "Completed"
    site.require_only_bases()


QUICK_END = (
    "import sys; from tasks import ending; ending.BY_HAND_SECONDS = 1.0; "
    "from flows.backup_subclient import main; sys.exit(main(sys.argv[1:]))"
)


@only_in_ci
def test_a_job_that_is_told_to_stop_while_azure_throttles_says_what_it_leaves_to_the_sweep(
    site: Site, prefect_server: PrefectServer
) -> None:
    """It ends within the time that it has, and does not wait for Azure until it is killed."""
    program = (sys.executable, "-c", QUICK_END)
    job = started_reading(site, prefect_server, with_server=True, program=program)
    try:
        site.control.add_fault(
            "status",
            plane="arm",
            method="DELETE",
            path="/snapshots/",
            status=429,
            retry_after=600,
            times=None,
        )
        job.send(signal.SIGTERM)
        assert job.wait() != 0
    finally:
        job.end()

    assert len(site.snapshots) == 2
    assert len(site.media.view().fenced) == 1
    (report,) = site.reports
    assert report.result is Result.FAILED
    assert any(
        "there was no time left for it, the next job or sweep does it" in told for told in report.alarms
    )

    site.control.clear_faults()
    state = sweep_leftovers(site.name, site.name, return_state=True)
    assert state.name == "Completed", state.message
    assert site.snapshots == []
    assert site.back_up().name == "Completed"
    site.require_only_bases()


def test_a_media_that_was_put_back_is_not_swept(site: Site) -> None:
    site.save_blocks()
    for name in ("older", "newer"):
        site.media.append(seen(name))
    keep_witness.fn(site.media)
    (site.media_folder / "log" / f"{1:012}").unlink()
    state = sweep_leftovers(site.name, site.name, return_state=True)
    assert state.is_failed() and "the media was put back" in state.message


def test_wrong_names_fail_with_the_names_there_are(site: Site) -> None:
    site.save_blocks()
    state = sweep_leftovers(site.name, "nobody", return_state=True)
    assert state.is_failed() and site.name in state.message
    state = sweep_leftovers(site.name, site.name, runs=("0123",), return_state=True)
    assert state.is_failed() and "no open run 0123: open are none" in state.message
    assert main([site.name, site.name, "--dry-run"]) == 0
