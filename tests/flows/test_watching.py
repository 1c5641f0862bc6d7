"""What people see of a job in Prefect, while it runs and later: artifacts, and logs where they belong."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest
from prefect import flow, runtime, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from prefect.client.schemas.objects import Artifact, FlowRun, Log, TaskRun
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_UI_URL,
    temporary_settings,
)

from tasks import progress
from tasks.policy import STAGE
from tasks.progress import StreamProgress, stream_progress
from tasks.progress_artifact import ProgressArtifact
from tasks.report import show_report
from tests.engine.world import MIB
from tests.flows.prefect_server import flow_run_of, logs_of, wait_for
from tests.flows.site import Site, managed
from tests.flows.test_report_and_progress import disk, report, vm
from tests.soak import only_in_ci
from vsa.model import DiskKind, DiskRole, SourceDisk
from vsa.ranges import ByteRange
from vsa.stop import Stop
from vsa.transfer.pump import Pump

OS = SourceDisk(
    name="web_os",
    role=DiskRole.OS,
    lun=None,
    kind=DiskKind.MANAGED,
    source="/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/web_os",
    unique_id="u",
    size=8 * MIB,
    sku="Standard_LRS",
    region="westeurope",
    resource_group="g",
)


def artifacts_of(flow_run_id: UUID, kind: str) -> list[Artifact]:
    """The flow run's artifacts of that kind."""
    mine = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]), type=ArtifactFilterType(any_=[kind])
    )
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=mine)


def test_a_read_that_is_repeated_is_told_on_the_task_whose_disk_is_read(site: Site) -> None:
    site.add_vm("web", [managed("web-os", size=MIB // 4), managed("web-data", size=MIB // 2)])
    site.save_blocks()
    site.control.add_fault("status", status=503, code="ServerBusy", plane="blob", header="x-ms-range")

    flow_run = flow_run_of(site.back_up())

    log = wait_for("the warning", lambda: _first(flow_run, REPEATED_READ))
    # It was said by one of the threads that read; the stage's own words come from the task's thread.
    name = "web-os" if "read bytes 0-262144 of" in log.message else "web-data"
    begun = wait_for("the stage's words", lambda: _first(flow_run, f"disk {name} via proxy-"))
    assert log.task_run_id is not None
    assert log.task_run_id == begun.task_run_id


REPEATED_READ = "503 ServerBusy: A scripted failure of azsim."


def _first(flow_run: FlowRun, words: str) -> Log | None:
    return next((log for log in logs_of(flow_run) if words in log.message), None)


@flow
def reported() -> None:
    vms = [vm(disk(f"disk-{n}", read=MIB, elapsed=1.0)) for n in range(500)]
    streams = {f"key-of-disk-{n}": str(uuid4()) for n in range(500)}
    entry = report(*vms, job=runtime.flow_run.id)
    show_report(entry, {"key-of-disk-0": "proxy-a"}, streams=streams, location="/backup")


@only_in_ci
def test_a_job_of_500_vms_has_a_summary_and_a_table_of_all_disks_whose_versions_are_its_jobs() -> None:
    runs = [flow_run_of(reported(return_state=True)) for _ in range(2)]
    for run in runs:
        (summary,), (table,) = artifacts_of(run.id, "markdown"), artifacts_of(run.id, "table")
        assert (summary.key, table.key) == ("backup-production", "backup-production-disks")
        assert "[The job](http://127.0.0.1:" in str(summary.data)
        assert f"/runs/flow-run/{run.id})" in str(summary.data)
        found = json.loads(str(table.data))
        assert [row["disk"] for row in found] == [f"disk-{n}" for n in range(500)]
        assert found[0]["proxy"] == "proxy-a"
        assert found[0]["stream"].startswith("http://127.0.0.1:")


class Zeros:
    """A disk of zeros that reads as fast as memory."""

    def read_into(self, at: ByteRange, buffer: memoryview) -> None:
        buffer[: at.length] = bytes(at.length)

    def close(self) -> None:
        pass


@task(retries=1, retry_delay_seconds=0, **STAGE)
def moved(job: str) -> None:
    """Half of the disk, then the first attempt fails; the second one moves the rest as well."""
    with stream_progress(OS, job=job, every_seconds=0.05) as told:
        told.started(OS.name, OS.size)
        with Pump(Zeros, longest=MIB, stop=Stop()) as pump:
            halves = [[ByteRange(n * MIB, (n + 1) * MIB) for n in half] for half in (range(4), range(4, 8))]
            pump.run(halves[0], lambda at, data: told.advanced(len(data)))
            wait_for("half of it on the server", lambda: _shown() == [50.0])
            if runtime.task_run.run_count == 1:
                raise ConnectionError("once")
            pump.run(halves[1], lambda at, data: told.advanced(len(data)))
        told.finished()


def _shown() -> list[object]:
    return [item.data for item in artifacts_of(UUID(runtime.flow_run.id), "progress")]


@flow
def watched(job: str) -> None:
    moved(job)


def test_a_stream_is_one_artifact_that_follows_it_through_a_repetition_to_its_end() -> None:
    job = str(uuid4())
    with temporary_settings({PREFECT_UI_URL: "http://dashboard"}):
        state = watched(job, return_state=True)
    assert state.is_completed()
    (shown,) = artifacts_of(flow_run_of(state).id, "progress")
    assert shown.data == 100.0
    assert shown.key is not None and shown.key.startswith("stream-web-os-")
    assert shown.task_run_id is not None
    assert str(shown.description).startswith("disk web\\_os: 8 MiB in ")
    assert str(shown.description).endswith(f", [job](http://dashboard/runs/flow-run/{job})")


@contextmanager
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """Its address, and whether anybody has called: it takes calls and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        called = threading.Event()
        calls: list[socket.socket] = []

        def take() -> None:
            calls.append(listener.accept()[0])
            called.set()

        threading.Thread(target=take, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/api", called
        finally:
            for call in calls:
                call.close()


def shown() -> StreamProgress:
    artifact = ProgressArtifact("stream-web", TaskRun(flow_run_id=uuid4(), task_key="moved", dynamic_key="0"))
    return StreamProgress(logging.getLogger("tests"), artifact.show, shown_every_seconds=0.01)


def test_a_server_that_never_answers_holds_up_neither_the_bytes_nor_for_long_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "LAST_WORD_SECONDS", 0.2)
    began = time.monotonic()
    with silent_server() as (url, called), temporary_settings({PREFECT_API_URL: url}):
        with shown() as told:
            told.started("web-os", 8 * MIB)
            told.advanced(MIB)
            assert called.wait(20)
            for _ in range(7):
                told.advanced(MIB)
            told.finished()
        assert time.monotonic() - began < 30, "an unanswered request lasts a minute"


def test_a_server_that_is_away_is_told_of_once_and_does_not_fail_the_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    away = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(away), shown() as told:
        told.started("web-os", 8 * MIB)
        told.advanced(MIB)
        wait_for("the complaint", lambda: "the stream goes on" in caplog.text)
        told.advanced(MIB)
        told.finished()
    assert [record.levelname for record in caplog.records if "progress" in record.message] == ["WARNING"]
