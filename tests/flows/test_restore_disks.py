"""The restore flow on a Prefect server: bit by bit, never over anything, and damage by its name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from flows.restore_disks import main, restore_disks
from tests.azsim_process import AzsimProcess
from tests.engine.world import KIB, random_bytes
from tests.flows.prefect_server import PrefectServer, flow_run_of, messages_of, task_runs_of, wait_for
from tests.flows.site import Site, managed
from vsa.restore.losses import SUFFIX


@pytest.fixture(scope="module")
def backed_up(
    simulation: AzsimProcess, prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> Site:
    """Two points of VM web, of which the second differs in its first extent; no test changes them."""
    site = Site(simulation.control, tmp_path_factory.mktemp("restore"))
    site.add_vm("web", [managed("web-os"), managed("web-data")])
    site.save_blocks()
    assert site.back_up().name == "Completed"
    site.write("web-os", 0, random_bytes(64 * KIB, "second"))
    assert site.back_up().name == "Completed"
    return site


def artifact_of(site: Site) -> str:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts()
    mine = [item for item in found if item.key == f"restore-{site.name}-web"]
    return str(max(mine, key=lambda item: item.created).data).replace("\\", "")


def restored(site: Site, folder: Path, **options: Any) -> Any:
    return restore_disks(site.name, str(folder), **options, return_state=True)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_newest_point_of_a_vm_is_restored_bit_by_bit_and_nothing_is_overwritten(
    backed_up: Site, tmp_path: Path
) -> None:
    site, folder = backed_up, tmp_path / "new" / "folder"
    first, second = site.points_of("web")
    state = restored(site, folder, vm="web", format="raw")
    assert state.name == "Completed", state.message
    assert f"2 of 2 disks of VM web restored from point {second}" in state.message
    shown = artifact_of(site)
    for disk in ("web-os", "web-data"):
        digest = site._digest(disk)
        assert sha256(folder / f"{disk}.raw") == digest
        assert f"{disk}.raw: sha256 {digest}" in state.message
        assert f"{folder / disk}.raw | 2 MiB | 2 MiB | {digest} | whole |" in shown
    names = {run.name for run in task_runs_of(flow_run_of(state), expected=4)}
    assert f"restore web-os to {folder}/web-os.raw" in names

    again = restored(site, folder, vm="web", format="raw", point=first, disks=("os",))
    assert again.is_failed() and "web-os.raw exists and is not overwritten" in again.message
    assert sha256(folder / "web-os.raw") == site._digest("web-os")
    code = main([site.name, "--point", str(first), "--disk", "os", "--to", str(tmp_path / "older")])
    assert code == 0
    assert [path.name for path in (tmp_path / "older").iterdir()] == ["web-os.vhd"]
    image = (tmp_path / "older" / "web-os.vhd").read_bytes()[:-512]
    assert image == (site.folder / "web-os.img").read_bytes()


def test_what_cannot_be_meant_is_refused_with_what_there_is(backed_up: Site, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    (first, _) = backed_up.points_of("web")
    for options, said in (
        ({"vm": "wbe"}, "no client is called 'wbe': the media has web"),
        ({"vm": "web", "disks": ("logs",)}, "no disk 'logs', only: web-os (os), web-data (lun 0)"),
        ({"point": 999}, f"there is no recovery point 999: the media has {first}, "),
        ({"point": first, "vm": "db"}, "no client is called 'db'"),
        ({}, "nothing is named"),
    ):
        state = restored(backed_up, folder, **options)
        assert state.is_failed() and said in state.message, state.message
    relative = restore_disks(backed_up.name, "restore", vm="web", return_state=True)
    assert relative.is_failed() and "'restore' is no absolute path" in relative.message
    assert main([backed_up.name, "--to", str(folder)]) == 1
    assert not folder.exists()
    unknown = restore_disks("nobody", str(folder), vm="web", return_state=True)
    assert unknown.is_failed() and backed_up.name in unknown.message


def test_damage_is_named_and_the_rest_is_had_by_salvage(
    backed_up: Site, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    site = backed_up
    second = site.points_of("web")[-1]
    pack = site.flip_bit_of(second, "web-os", extent=0)
    request.addfinalizer(lambda: site.flip_bit_of(second, "web-os", extent=0))
    state = restored(site, tmp_path / "new", point=second, format="raw")
    assert state.name == "Completed with errors", state.message
    assert f"64 KiB in 1 range cannot be restored: bytes 0 to 65536 ({pack})" in state.message
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["web-data.raw"]
    assert sha256(tmp_path / "new" / "web-data.raw") == site._digest("web-data")
    assert "| web-os | os |" in artifact_of(site) and "| failed |" in artifact_of(site)

    salvaged = restored(site, tmp_path / "rest", point=second, disks=("os",), format="raw", salvage=True)
    assert salvaged.name == "Completed with errors", salvaged.message
    assert "LOST 64 KiB in 1 range" in salvaged.message
    held = (tmp_path / "rest" / "web-os.raw").read_bytes()
    assert held == bytes(64 * KIB) + (site.folder / "web-os.img").read_bytes()[64 * KIB :]
    assert (tmp_path / "rest" / f"web-os.raw{SUFFIX}").exists()
    assert restored(site, tmp_path / "none", point=second, disks=("os",)).is_failed()
    wait_for("the log", lambda: any("sha256" in line for line in messages_of(flow_run_of(salvaged))))
