from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path

import pytest
from azure.mgmt.compute import models as m

from azsim.control import Control, ControlError
from tests.azsim_process import AzsimProcess
from tests.azsim_sdk import Azure, connect

MIB = 1 << 20


def snapshot_of(azure: Azure, name: str) -> str:
    """Take and grant a snapshot of disk d in rg1; returns its SAS URL."""
    disk = azure.compute.disks.get("rg1", "d")
    request = m.Snapshot(
        location="westeurope",
        creation_data=m.CreationData(create_option="Copy", source_resource_id=disk.id),
        incremental=True,
    )
    azure.compute.snapshots.begin_create_or_update("rg1", name, request).result()
    access = m.GrantAccessData(access="Read", duration_in_seconds=3600)
    return str(azure.compute.snapshots.begin_grant_access("rg1", name, access).result().access_sas)


def changed(azure: Azure, older: str, newer: str) -> list[tuple[int, int]]:
    with azure.blob(newer) as blob:
        found = blob.list_page_ranges(previous_snapshot={"snapshot": None}, prev_snapshot_url=older)
        return [(each.start, each.end) for each in found]


def test_a_start_and_a_stop_cost_less_than_three_seconds_of_a_processor(tmp_path: Path) -> None:
    """Not of the clock: other processes may want the processors, too."""
    before = os.times()
    with AzsimProcess(tmp_path / "state") as process:
        assert process.control.clock()["ahead_seconds"] == 0
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert 0 < spent < 3


def test_the_endpoint_is_printed_and_kept_and_secrets_are_private(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    with AzsimProcess(tmp_path / "state", ready_file=ready) as process:
        state = process.state_dir
        assert json.loads((state / "endpoint.json").read_text()) == process.endpoint
        assert json.loads(ready.read_text()) == process.endpoint
        for name in ("control.key", "client.secret", "server.key", "token.key"):
            assert stat.S_IMODE((state / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_the_server_cleanly(tmp_path: Path, signal_number: int) -> None:
    process = AzsimProcess(tmp_path).start()
    assert process.stop(signal_number) == 0


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_changes_nothing(tmp_path: Path, end: int) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"a" * MIB)
    process = AzsimProcess(tmp_path / "state").start()
    process.control.create_fleet(
        {
            "storage_accounts": [{"name": "acct"}],
            "vms": [
                {
                    "name": "vm",
                    "disks": [
                        {"name": "d", "image": str(image)},
                        {"name": "u", "image": str(image), "managed": False, "account": "acct"},
                    ],
                }
            ],
        }
    )
    process.control.advance_clock(1000)
    azure = connect(process)
    older = snapshot_of(azure, "older")
    azure.close()
    inventory = process.control.inventory()
    process.stop(end)

    with AzsimProcess(tmp_path / "state") as again:
        assert again.endpoint == process.endpoint
        assert again.control.inventory() == inventory
        assert again.control.clock()["ahead_seconds"] == 1000
        again.control.clear("d", 512, 512)
        azure = connect(again)
        assert changed(azure, older, snapshot_of(azure, "newer")) == [(512, 1023)]
        azure.close()


def test_a_token_outlives_a_restart(tmp_path: Path) -> None:
    process = AzsimProcess(tmp_path).start()
    process.control.create_fleet({"disks": [{"name": "d", "size": MIB}]})
    azure = connect(process)
    azure.compute.disks.get("rg1", "d")
    process.stop()
    with AzsimProcess(tmp_path) as again:
        assert azure.compute.disks.get("rg1", "d").name == "d"
        assert not [each for each in again.control.requests() if each["plane"] == "token"]
    azure.close()


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    with AzsimProcess(tmp_path / "one") as one:
        port = one.endpoint["base_url"].rsplit(":", 1)[1]
        with pytest.raises(RuntimeError, match=f"port {port} on 127.0.0.1 is taken"):
            AzsimProcess(tmp_path / "two", port=port).start()


def test_one_state_folder_has_one_server(tmp_path: Path) -> None:
    with AzsimProcess(tmp_path), pytest.raises(RuntimeError, match="in use by another azsim"):
        AzsimProcess(tmp_path).start()


def test_the_control_api_needs_its_key(tmp_path: Path) -> None:
    with AzsimProcess(tmp_path) as process:
        stranger = tmp_path / "stranger"
        stranger.mkdir()
        (stranger / "endpoint.json").write_text(json.dumps(process.endpoint))
        (stranger / "control.key").write_text("guess")
        with pytest.raises(ControlError, match="must hold the content"):
            Control(stranger).inventory()


def test_a_stopped_simulation_is_named(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="start the simulation"):
        Control(tmp_path).inventory()
    process = AzsimProcess(tmp_path).start()
    control = process.control
    control.inventory()
    process.stop()
    for either in (Control(tmp_path), control):
        with pytest.raises(ControlError, match="is the simulation up"):
            either.inventory()


def test_a_control_outlives_a_restart_at_the_same_address(tmp_path: Path) -> None:
    process = AzsimProcess(tmp_path).start()
    control, before = process.control, process.endpoint
    control.create_fleet({"disks": [{"name": "d", "size": MIB}]})
    process.kill()
    port = before["base_url"].rsplit(":", 1)[1]
    with AzsimProcess(tmp_path, port=port) as again:
        assert again.endpoint == before
        assert [disk["name"] for disk in control.inventory()["disks"]] == ["d"]


def test_disks_are_read_where_the_server_is_told_that_they_are(tmp_path: Path) -> None:
    (tmp_path / "d.img").write_bytes(b"d" * MIB)
    with AzsimProcess(tmp_path / "state", disk_address="https://front.example:8443") as process:
        process.control.create_fleet({"disks": [{"name": "d", "image": str(tmp_path / "d.img")}]})
        azure = connect(process)
        url = snapshot_of(azure, "s")
        assert url.startswith("https://front.example:8443/md-")
        with azure.blob(url.replace("https://front.example:8443", azure.base_url)) as blob:
            assert blob.get_blob_properties().size == MIB + 512
        azure.close()
