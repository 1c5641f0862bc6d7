"""The systemd units and container files that are shipped, as far as a machine without either can judge."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deployments.pools import CONTROL_POOL
from tests.flows.prefect_server import ROOT
from vsa.transfer.liveness import MACHINE_IDS, machine_id

DEPLOYMENTS = ROOT / "deployments"


@pytest.mark.tools
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is missing (systemd)")
@pytest.mark.parametrize(
    ("shipped", "started"),
    [
        ("azure-vsa-control.service", "azure-vsa-control.service"),
        ("azure-vsa-worker@.service", "azure-vsa-worker@proxy-a.service"),
    ],
)
def test_systemd_takes_the_units(shipped: str, started: str, tmp_path: Path) -> None:
    unit = (DEPLOYMENTS / "units" / shipped).read_text()
    # What is installed on the machine that they are for.
    unit = unit.replace("/opt/azure-vsa/.venv/bin/python", sys.executable).replace(
        "User=azure-vsa", "User=root"
    )
    (tmp_path / started).write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / started],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", sorted((DEPLOYMENTS / "units").iterdir()), ids=lambda path: path.stem)
def test_units_tell_their_user_which_machine_it_is(unit: Path, tmp_path: Path) -> None:
    lines = [line for line in unit.read_text().splitlines() if line.startswith("ExecStartPre=")]
    # As root, and no reason not to start where the hardware has no id.
    (command,) = [line.removeprefix("ExecStartPre=+-") for line in lines]
    said, copied = tmp_path / "product_uuid", tmp_path / "run" / "machine"
    moved = {str(MACHINE_IDS[0]): str(said), str(MACHINE_IDS[1]): str(copied)}
    moved["azure-vsa"] = pwd.getpwuid(os.getuid()).pw_name
    words = [moved.get(word, word) for word in shlex.split(command)]
    for board in ("its board", "another, after it was moved"):
        said.write_text(f"{board}\n")
        subprocess.run(words, check=True, umask=0o077)
        assert machine_id((tmp_path / "hidden", copied)) == board
    assert (copied.stat().st_mode & 0o777, copied.parent.stat().st_mode & 0o777) == (0o400, 0o755)


def test_units_and_containers_serve_pools_by_the_worker_that_finishes_what_has_begun() -> None:
    units = [path.read_text() for path in (DEPLOYMENTS / "units").iterdir()]
    assert all("/bin/python -m deployments.worker" in unit and "KillMode=mixed" in unit for unit in units)
    assert (
        'ENTRYPOINT ["python", "-m", "deployments.worker"]'
        in (DEPLOYMENTS / "container" / "Dockerfile").read_text()
    )
    services = yaml.safe_load((DEPLOYMENTS / "container" / "compose.yaml").read_text())["services"]
    assert services["control"]["command"] == [CONTROL_POOL]
    assert all(service["read_only"] and service["stop_grace_period"] for service in services.values())
