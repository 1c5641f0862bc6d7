"""A Prefect server on PostgreSQL, as in production: a backup is run and recorded through it."""

from __future__ import annotations

import subprocess
import sys
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client

from demo.postgresql import programs
from tests.flows.prefect_server import ROOT, PrefectServer, messages_of, task_runs_of
from tests.flows.site import Site, managed
from tests.soak import only_in_ci

pytestmark = [
    only_in_ci,
    pytest.mark.tools,
    pytest.mark.skipif(not programs(), reason="PostgreSQL's initdb and postgres are missing (postgresql)"),
]


def test_a_backup_is_recorded_by_a_server_on_postgresql(prefect_server: PrefectServer, site: Site) -> None:
    """In CI the server that tests share is on it."""
    site.add_vm("web", [managed("web-os"), managed("web-data")])
    site.save_blocks()
    done = subprocess.run(
        [sys.executable, "-m", "flows.backup_subclient", site.name, "--in-process"],
        env=dict(prefect_server.environment()),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = site.reports
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(report.job))
    assert run.state is not None and run.state.name == "Completed"
    names = {task.name.rsplit("-", 1)[0] for task in task_runs_of(run, expected=8)}
    assert len(names) > 1 and messages_of(run)
    assert not prefect_server.is_on_sqlite
    assert not prefect_server.database.exists(), "nothing was kept in SQLite"
    site.require_restorable(site.points_of("web")[0])
