"""`make server`: everything is there when it says so, and nothing is left when it has ended."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo.installation import POOLS, free_port
from demo.process_tree import living, send
from tests.installation.local_installation import DISKS, LocalInstallation, wait_for
from tests.soak import only_in_ci

pytestmark = [only_in_ci, pytest.mark.timeout(900)]

# A stop may take as long as running jobs take to remove what they have in Azure.
_STOP_SECONDS = 150.0


def test_one_command_starts_everything_and_ctrl_c_ends_it_in_the_middle_of_a_job(
    installation: LocalInstallation,
) -> None:
    api = installation.here.api
    assert api.answers()
    assert f"The dashboard is at {installation.here.dashboard}." in installation.said
    workers = {pool: api.ask("POST", f"/work_pools/{pool}/workers/filter", {}) for pool in POOLS}
    assert {pool: [row["status"] for row in rows] for pool, rows in workers.items()} == {
        pool: ["ONLINE"] for pool in POOLS
    }
    planned = [item for found in api.ask("POST", "/deployments/filter", {}) for item in found["schedules"]]
    assert planned and all(schedule["active"] for schedule in planned)

    # Other tests may have started jobs, and their bases stay.
    wait_for(lambda: not installation.runs_now, seconds=300)
    bases = installation.snapshots
    slow = installation.read_slowly()
    installation.start_a_job()
    wait_for(lambda: installation.control.fired(slow) > 0, seconds=180)
    assert len(installation.snapshots) == len(bases) + DISKS
    everything = installation.processes()
    began = time.monotonic()
    installation.interrupt(seconds=_STOP_SECONDS)
    said = installation.said

    assert living(everything) == set(), f"left after {time.monotonic() - began:.0f} s"
    assert "were killed" not in said

    # The same folder goes on; the job that was cut short has left nothing in Azure.
    installation.start()
    assert installation.snapshots == bases, said
    everything = installation.processes()
    installation.kill()
    left = living(everything)
    assert left, "servers and workers outlive their installation when that is killed"
    try:
        installation.start()
        assert living(left) == set(), "and the next start ends them"
    finally:
        send(left, signal.SIGKILL)
    installation.interrupt(seconds=_STOP_SECONDS)


def test_a_part_that_does_not_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "FLEET.json").write_text(json.dumps({}))
    (folder / "installation.json").write_text("{}")
    (folder / "azure").write_text("in the way")
    done = subprocess.run(
        [sys.executable, "-m", "demo.server", folder, "--port", str(free_port())],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    log = folder / "logs" / "simulated-azure.log"
    assert (
        f"the simulated Azure ended with 1 before it was ready. {log} ends with:\n  | azsim: " in done.stdout
    )
    assert str(folder / "azure") in done.stdout
