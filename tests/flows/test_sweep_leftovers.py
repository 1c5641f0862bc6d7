"""The sweep on a Prefect server: what a killed job left goes, what a running one owns stays."""

from __future__ import annotations

import signal
from uuid import UUID

import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.states import Cancelling, Crashed, Running, Scheduled

from blocks.subclient import BackupSubclient
from flows.sweep_leftovers import main, sweep_leftovers
from tasks.witness import keep_witness
from tests.engine.world import MIB
from tests.flows.job_process import Job
from tests.flows.prefect_server import PrefectServer, flow_run_of, messages_of, wait_for
from tests.flows.site import Site, managed
from tests.media.test_log import seen
from tests.soak import only_in_ci
from vsa.errors import RunStopped
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.runs import Run


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


def begun(site: Site) -> tuple[BackupJob, Run, UUID]:
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
