"""A Prefect server on PostgreSQL, as in production: a backup is run and recorded through it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client

from demo.postgresql import postgresql, programs
from tests.azsim_process import AzsimProcess
from tests.flows.prefect_server import ROOT, PrefectServer, messages_of, task_runs_of
from tests.flows.site import Site, managed
from tests.soak import only_in_ci

FOLDER = programs()

pytestmark = [
    only_in_ci,
    pytest.mark.tools,
    pytest.mark.skipif(FOLDER is None, reason="PostgreSQL's initdb and postgres are missing (postgresql)"),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrefectServer]:
    assert FOLDER is not None
    with postgresql(FOLDER) as url:
        settings = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url}
        server = PrefectServer(tmp_path / "prefect", settings=settings)
        try:
            with server.start().in_use():
                yield server
        finally:
            server.stop()


def test_a_backup_is_recorded_by_a_server_on_postgresql(
    server: PrefectServer, simulation: AzsimProcess, tmp_path: Path
) -> None:
    site = Site(simulation.control, tmp_path)
    site.add_vm("web", [managed("web-os"), managed("web-data")])
    site.save_blocks()
    done = subprocess.run(
        [sys.executable, "-m", "flows.backup_subclient", site.name, "--in-process"],
        env=dict(server.environment()),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs()
    assert run.state is not None and run.state.name == "Completed"
    assert [report.job for report in site.reports] == [str(run.id)]
    names = {task.name.rsplit("-", 1)[0] for task in task_runs_of(run, expected=8)}
    assert len(names) > 1 and messages_of(run)
    assert not server.database.exists(), "nothing was kept in SQLite"
    site.require_restorable(site.points_of("web")[0])
