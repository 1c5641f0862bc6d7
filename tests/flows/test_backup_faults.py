"""Bad input and faults: each job says what is wrong, leaves nothing behind and loses nothing."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext

from flows.backup_subclient import backup_subclient
from tasks.vm_run import VmRun
from tests.engine.world import KIB, random_bytes
from tests.flows.prefect_server import flow_run_of, messages_of, task_runs_of, wait_for
from tests.flows.running_job import RunningJob
from tests.flows.site import Site, managed
from vsa.media.entries import Result
from vsa.model import Reason
from vsa.stop import DEFAULT_DELAYS
from vsa.transfer.backup_job import BackupJob

# How often the engine asks for one thing before the stage fails: once, and again after each of its delays.
PATIENCE = 1 + len(DEFAULT_DELAYS)


def failed(state: State[Any]) -> str:
    """The message of a state that says the job failed."""
    assert (state.type.value, state.name) == ("FAILED", "Failed"), state
    assert state.message
    return state.message


def test_a_failing_disk_costs_its_own_vm_the_point_and_nobody_else(site: Site) -> None:
    for vm in ("alpha", "beta", "gamma"):
        site.add_vm(vm, [managed(f"{vm}-os"), managed(f"{vm}-data")])
    site.save_blocks()
    site.back_up()
    first = {vm: site.points_of(vm) for vm in ("alpha", "beta", "gamma")}
    bases = site.bases
    refused = site.control.add_fault(
        "status",
        status=403,
        code="AuthorizationFailed",
        plane="arm",
        path=f"{site.snapshots_path('beta-data')}/beginGetAccess",
        times=None,
    )

    state = site.back_up()

    assert (state.type.value, state.name) == ("COMPLETED", "Completed with errors")
    assert state.message and state.message.startswith("2 of 3 VMs have a recovery point.\nbeta: ")
    assert "disk beta-data: ask for access to snapshot vsa-" in state.message
    assert "AuthorizationFailed" in state.message
    assert site.points_of("beta") == first["beta"]
    assert [len(site.points_of(vm)) for vm in ("alpha", "gamma")] == [2, 2]
    assert len(site.bases & bases) == 2, "the failed VM keeps both of its old bases, the others have new ones"
    site.require_only_bases()
    beta = next(vm for vm in site.reports[-1].vms if vm.name == "beta")
    assert {disk.name: disk.method is not None for disk in beta.disks} == {
        "beta-os": True,
        "beta-data": False,
    }
    assert "## Needs attention\n\n- beta: " in _artifact(state)

    site.control.clear_faults(refused)
    site.write("beta-data", 0, random_bytes(64 * KIB, "meanwhile"))
    state = site.back_up()
    assert state.name == "Completed"
    assert {disk.reason for vm in state.result().vms for disk in vm.disks} == {Reason.CBT}
    site.require_restorable(site.points_of("beta")[-1])
    site.require_only_bases()


def _artifact(state: State[Any]) -> str:
    summary = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_of(state).id]),
        type=ArtifactFilterType(any_=["markdown"]),
    )
    with get_client(sync_client=True) as client:
        (artifact,) = client.read_artifacts(artifact_filter=summary)
    return str(artifact.data)


def test_a_job_without_any_point_has_failed(site: Site) -> None:
    site.add_vm("web", [managed("web-os")])
    site.add_vm("db", [managed("db-os")])
    site.save_blocks()
    site.control.add_fault(
        "status",
        status=403,
        code="AuthorizationFailed",
        method="PUT",
        path=f"/{site.group}/.*/snapshots/",
        times=None,
    )

    message = failed(site.back_up())

    assert message.startswith("0 of 2 VMs have a recovery point.\ndb: ")
    assert site.reports[-1].result is Result.FAILED
    assert site.snapshots == []
    assert not site.media.view().points


def test_an_error_that_nobody_thought_of_leaves_nothing_and_has_all_the_time_to_clean_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody kills its process, and no hook follows."""
    site.add_vm("web", [managed("web-os"), managed("web-data")])
    site.save_blocks()

    def fail(_: VmRun) -> None:
        assert len(site.snapshots) == 2
        raise RuntimeError("no thread can be started")

    limits: list[float] = []
    monkeypatch.setattr(VmRun, "transfer_and_commit", fail)
    monkeypatch.setattr(BackupJob, "end_within", lambda _, seconds: limits.append(seconds))

    assert site.back_up().is_failed()

    assert (site.snapshots, limits) == ([], [])
    assert site.reports[-1].alarms == ("the job was cut short: RuntimeError",)


def test_a_job_that_is_cut_short_releases_together_what_was_not_read_yet(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each VM says why it has no point."""
    state, most = _cut_short(site, monkeypatch, lambda: None)

    assert state.is_failed()
    assert most == len(VMS)


def test_it_releases_also_where_prefect_takes_no_tasks_any_more(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shut() -> None:
        context = FlowRunContext.get()
        assert context is not None
        context.task_runner.__exit__(None, None, None)

    assert _cut_short(site, monkeypatch, shut)[0].is_failed()


VMS = ("alpha", "beta", "gamma")


def _cut_short(
    site: Site, monkeypatch: pytest.MonkeyPatch, first: Callable[[], None]
) -> tuple[State[Any], int]:
    """A job that is cut short, after `first`, when all have their snapshots and nothing was read of them; how
    many were being deleted before one was gone."""
    for vm in VMS:
        site.add_vm(vm, [managed(f"{vm}-os")])
    site.save_blocks()

    def fail(_: VmRun) -> None:
        wait_for("all snapshots", lambda: len(site.snapshots) == len(VMS))
        first()
        raise RuntimeError("nobody thought of it")

    monkeypatch.setattr(VmRun, "transfer_and_commit", fail)
    deletes = site.control.add_fault(
        "delay", seconds=2, method="DELETE", path=f"/{site.group}/.*/snapshots/", times=None
    )
    job = RunningJob(site, in_process=True)
    wait_for("the first delete", lambda: site.control.fired(deletes) > 0, seconds=60)
    most = 0
    while len(site.snapshots) == len(VMS):
        most = site.control.fired(deletes)
    state = job.ended()

    assert site.snapshots == []
    assert {vm.name: vm.error for vm in site.reports[-1].vms} == dict.fromkeys(
        VMS, "the job ended before its point was made"
    )
    return state, most


def test_a_job_that_is_cut_short_releases_what_was_still_being_made(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for vm in VMS:
        site.add_vm(vm, [managed(f"{vm}-os")])
    site.save_blocks()
    slow = site.control.add_fault("delay", seconds=4, method="PUT", path=site.snapshots_path("beta-os"))

    def fail(_: VmRun) -> None:
        wait_for("a snapshot that takes its time", lambda: site.control.fired(slow) > 0)
        raise RuntimeError("nobody thought of it")

    monkeypatch.setattr(VmRun, "transfer_and_commit", fail)

    assert site.back_up().is_failed()

    assert site.snapshots == []


def test_a_disk_that_disappears_after_its_vm_was_listed_is_named(site: Site) -> None:
    site.add_vm("web", [managed("web-os"), managed("web-data")])
    site.add_vm("db", [managed("db-os")])
    site.save_blocks()
    site.control.add_fault(
        "run",
        operation="delete_disk",
        arguments={"disk": site.disk_id("web-data")},
        method="GET",
        path=f"/{site.group}/.*/disks/web-os$",
    )

    state = site.back_up()

    assert state.name == "Completed with errors"
    assert "VM web: disk web-data disappeared after the VM was listed" in str(state.message)
    assert [len(site.points_of(vm)) for vm in ("web", "db")] == [0, 1]
    site.require_only_bases()


def test_a_subclient_that_selects_nothing_says_what_was_looked_at(site: Site) -> None:
    site.save_blocks(vms=("nobody",))
    asked = len(_vm_lists(site))

    message = failed(site.back_up())

    assert f"subclient {site.name} selects no VM of subscription" in message
    assert f"Rule tag site equals '{site.name}': holds for 0 of " in message
    assert "nobody: named in the subclient, but not among the " in message
    assert len(_vm_lists(site)) == asked + 1, "bad input is not worth another attempt"
    assert site.reports[-1].alarms == (message.split("\n", 1)[1],)


def _vm_lists(site: Site) -> list[dict[str, Any]]:
    path = (
        f"/subscriptions/{site.control.endpoint['subscription']}/providers/Microsoft.Compute/virtualMachines"
    )
    requests = site.control.requests()
    return [
        row for row in requests if row["path"].lower() == path.lower() and "skiptoken" not in row["query"]
    ]


def test_an_unknown_subclient_is_answered_with_the_known_ones(site: Site) -> None:
    site.save_blocks()
    message = failed(backup_subclient("no-such-subclient", return_state=True))
    assert "there is no subclient 'no-such-subclient'" in message
    assert site.name in message.partition("these are saved: ")[2].split(", ")


def absent(folder: Path) -> str:
    return "no backup media, there is no such folder"


def empty(folder: Path) -> str:
    folder.mkdir()
    return "no backup media there, it is empty; `vsa init` makes one"


def foreign(folder: Path) -> str:
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"not ours")
    return "it holds other things (holiday.jpg)"


@pytest.mark.parametrize("make", [absent, empty, foreign])
def test_a_folder_that_is_no_media_is_refused_before_azure_is_asked(site: Site, make: Any) -> None:
    site.add_vm("web", [managed("web-os")])
    folder = site.folder / "other"
    expected = make(folder)
    before = sorted(folder.iterdir()) if folder.exists() else None
    site.save_blocks(location=str(folder))
    asked = len(site.control.requests())

    message = failed(site.back_up())

    assert str(folder) in message
    assert expected in message
    assert len(site.control.requests()) == asked
    assert (sorted(folder.iterdir()) if folder.exists() else None) == before


def test_media_of_a_newer_version_is_refused(site: Site) -> None:
    site.save_blocks()
    descriptor = site.media_folder / "media.json"
    fields = json.loads(descriptor.read_text())
    del fields["sha256"]
    body = json.dumps(fields | {"version": 99})
    digest = hashlib.sha256(body.encode()).hexdigest()
    descriptor.chmod(0o600)
    descriptor.write_text(f'{{"sha256":"{digest}",{body[1:]}')
    assert "is of format version 99, not 1: upgrade azure-vsa" in failed(site.back_up())


@pytest.mark.tools
def test_media_that_cannot_be_written_is_refused_before_azure_is_asked(site: Site) -> None:
    site.add_vm("web", [managed("web-os")])
    site.save_blocks()
    asked = len(site.control.requests())
    with read_only(site.media_folder):
        message = failed(site.back_up())
    assert str(site.media_folder) in message
    assert "read-only" in message
    assert len(site.control.requests()) == asked
    assert site.back_up().name == "Completed"


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take away the right to write; permissions alone do not stop the superuser."""
    if os.geteuid() != 0:
        pytest.skip("needs the right to mount a file system")
    if subprocess.run(["mount", "--bind", folder, folder], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_wrong_client_secret_is_named_and_not_told(site: Site) -> None:
    site.add_vm("web", [managed("web-os")])
    site.save_blocks(secret="a-secret-that-is-wrong")
    message = failed(site.back_up())
    assert "signing in to Azure failed" in message
    assert "a-secret-that-is-wrong" not in message
    assert site.reports[-1].result is Result.FAILED


def test_a_stage_is_repeated_when_throttling_outlasts_the_patience_of_its_requests(site: Site) -> None:
    site.add_vm("web", [managed("web-os")])
    site.save_blocks()
    storm = site.control.add_fault(
        "status", status=429, code="TooManyRequests", retry_after=0, plane="blob", times=PATIENCE
    )

    state = site.back_up()

    assert state.name == "Completed"
    assert site.control.fired(storm) == PATIENCE
    runs = task_runs_of(flow_run_of(state), expected=13)
    transfer = next(run for run in runs if run.name.startswith("transfer"))
    assert transfer.run_count == 2
    assert {run.run_count for run in runs if run is not transfer} == {1}
    said = wait_for("the repetitions in the task's log", lambda: _retries_said(transfer))
    assert len(said) == PATIENCE - 1
    site.require_restorable(site.points_of("web")[0])


def test_repetitions_in_threads_of_the_engine_are_in_the_log_of_the_job(site: Site) -> None:
    site.add_vm("web", [managed("web-os"), managed("web-data")])
    site.save_blocks()
    site.control.add_fault(
        "status", status=503, retry_after=0, method="PUT", path=site.snapshots_path("web-data")
    )
    run = flow_run_of(site.back_up())
    wait_for(
        "the repetition in the log",
        lambda: any("503" in said and "; trying again in " in said for said in messages_of(run)),
    )


def _retries_said(task_run: TaskRun) -> list[str] | None:
    """What the log says on the task that was throttled: the engine's repetitions, then the stage's."""
    said = messages_of(task_run)
    requests = [message for message in said if "; trying again in " in message]
    stages = [message for message in said if "Retry 1/3 will start" in message]
    return requests if stages and len(requests) >= PATIENCE - 1 else None
