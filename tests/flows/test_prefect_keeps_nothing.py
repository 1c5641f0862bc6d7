"""What travels between tasks stays in memory: Prefect neither stores a job nor takes it apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from prefect.utilities.collections import visit_collection

from tests.flows.prefect_server import PrefectServer, flow_run_of, task_runs_of
from tests.flows.site import Site, managed
from vsa.azure.connection import AzureConnection
from vsa.media.entries import JobEntry
from vsa.transfer.backup_job import BackupJob


def test_no_parameter_and_no_result_is_stored(site: Site, prefect_server: PrefectServer) -> None:
    site.add_vm("web", [managed("web-os")])
    site.save_blocks()
    # Of a flow that raises Prefect stores the error, whatever the flow says of results; others were here.
    before = _stored_below(prefect_server)

    state = site.back_up(method="crc")

    flow_run = flow_run_of(state)
    assert flow_run.parameters == {
        "subclient": site.name,
        "method": "crc",
        "full": False,
        "stop_after_minutes": None,
        "in_process": True,
    }
    assert isinstance(state.result(), JobEntry)
    assert _stored(flow_run.state) is None
    runs = task_runs_of(flow_run, expected=13)
    # A task's inputs are recorded as references to the runs that made them, nothing of what they are.
    recorded = [item for run in runs for inputs in run.task_inputs.values() for item in inputs]
    assert {item.input_type for item in recorded} == {"task_run"}
    assert {_stored(run.state) for run in runs} == {None}
    assert _stored_below(prefect_server) == before


def _stored_below(server: PrefectServer) -> set[Path]:
    return set((server.home / "tests").rglob("storage/*"))


def _stored(state: Any) -> object:
    """Where the server says that the state's result was written."""
    return getattr(state.data, "storage_key", None) if state.data else None


def test_a_job_is_one_opaque_thing_to_prefect(site: Site) -> None:
    job = BackupJob(
        "job",
        subclient=site.settings(),
        connection=AzureConnection("subscription"),
        media=site.media,
        proxies=[],
        scratch=site.folder,
    )
    visited: list[object] = []

    visit_collection({"job": job}, visit_fn=visited.append, return_data=False)

    assert [type(item).__name__ for item in visited] == ["dict", "str", "BackupJob"]
    with pytest.raises(TypeError, match="pickle"):
        cloudpickle.dumps(job)
