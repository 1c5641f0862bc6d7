from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.azsim_process import AzsimProcess

KIB, MIB = 1 << 10, 1 << 20
Runs = Callable[..., str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzsimProcess]:
    with AzsimProcess(tmp_path_factory.mktemp("azsim-cli")) as process:
        yield process


def azsim(process: AzsimProcess, *command: str | Path) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    verb = words[:2] if words[0] == "fault" else words[:1]
    line = [sys.executable, "-m", "azsim", *verb, "--state", str(process.state_dir), *words[len(verb) :]]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def run(served: AzsimProcess) -> Runs:
    """Run a command that must succeed; returns what it printed."""

    def succeed(*command: str | Path) -> str:
        done = azsim(served, *command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return succeed


@pytest.fixture
def fleet(run: Runs, tmp_path: Path, group: str) -> dict[str, str]:
    """A fleet from a file with relative image paths; returns names by role."""
    name = group.lower()
    account = name.replace("-", "")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "small.img").write_bytes(b"s" * MIB)
    image = "images/small.img"
    document = {
        "resource_group": group,
        "storage_accounts": [{"name": account, "sku": "Premium_LRS"}],
        "vms": [
            {
                "name": name,
                "location": "northeurope",
                "tags": {"backup": "yes"},
                "disks": [
                    {"name": f"{name}-os", "kind": "os", "lun": None, "image": image, "size": 2 * MIB},
                    {"name": "vhd", "image": image, "managed": False, "account": account, "size": 3 * MIB},
                ],
            }
        ],
    }
    (tmp_path / "FLEET.json").write_text(json.dumps(document))
    run("create-fleet", tmp_path / "FLEET.json")
    return {"vm": name, "os": f"{name}-os", "vhd": f"{account}/vhds/vhd.vhd", "account": account}


def digest(run: Runs, disk: str) -> str:
    return str(json.loads(run("digest-disk", disk))["sha256"])


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def rows(run: Runs, kind: str, **wanted: Any) -> list[dict[str, Any]]:
    found = json.loads(run("inventory", "--json"))[kind]
    return [row for row in found if wanted.items() <= row.items()]


def test_a_fleet_holds_its_images_with_zeros_behind_them(run: Runs, fleet: dict[str, str]) -> None:
    assert digest(run, fleet["os"]) == sha256(b"s" * MIB + bytes(MIB))
    assert digest(run, fleet["vhd"]) == sha256(b"s" * MIB + bytes(2 * MIB))
    (vm,) = rows(run, "vms", name=fleet["vm"])
    assert (vm["location"], vm["power"], vm["tags"]) == ("northeurope", "running", {"backup": "yes"})
    (blob,) = rows(run, "blobs", account=fleet["account"])
    assert blob["length"] == 3 * MIB + 512


@pytest.mark.parametrize("role", ["os", "vhd"])
def test_write_disk_makes_the_disk_equal_to_a_file(
    run: Runs, fleet: dict[str, str], tmp_path: Path, role: str
) -> None:
    content = bytearray(b"s" * MIB)
    content[100 * KIB : 100 * KIB + 5] = b"hello"
    content[200 * KIB : 208 * KIB] = bytes(8 * KIB)
    image = tmp_path / "changed.img"
    image.write_bytes(content)
    plain = json.loads(run("write-disk", fleet[role], "--image", image))
    assert (plain["written"], plain["cleared"]) == (12 * KIB, 0)
    assert digest(run, fleet[role]) == sha256(bytes(content).ljust(plain["size"], b"\0"))
    image.write_bytes(bytes(MIB))
    discarded = json.loads(run("write-disk", fleet[role], "--image", image, "--discard"))
    assert (discarded["written"], discarded["cleared"]) == (0, MIB - 8 * KIB)
    assert digest(run, fleet[role]) == sha256(bytes(plain["size"]))


@pytest.mark.parametrize("role", ["os", "vhd"])
def test_a_larger_file_grows_the_disk(run: Runs, fleet: dict[str, str], tmp_path: Path, role: str) -> None:
    image = tmp_path / "larger.img"
    content = b"L" * (5 * MIB + 100)
    image.write_bytes(content)
    assert json.loads(run("write-disk", fleet[role], "--image", image))["size"] == 5 * MIB + 512
    assert digest(run, fleet[role]) == sha256(content.ljust(5 * MIB + 512, b"\0"))


def test_guest_writes_clears_and_growth_at_an_offset(
    run: Runs, fleet: dict[str, str], tmp_path: Path
) -> None:
    piece = tmp_path / "piece"
    piece.write_bytes(b"p" * 1024)
    run("write-disk", fleet["os"], "--offset", "512", "--from", piece)
    run("clear-disk", fleet["os"], "--offset", "4096", "--length", "512")
    run("grow-disk", fleet["os"], "--size", str(3 * MIB))
    content = bytearray(b"s" * MIB + bytes(2 * MIB))
    content[512:1536] = b"p" * 1024
    content[4096:4608] = bytes(512)
    assert digest(run, fleet["os"]) == sha256(content)
    saved = tmp_path / "saved.img"
    run("save-disk", fleet["os"], saved)
    assert saved.read_bytes() == content


def test_the_rest_of_the_last_sector_of_a_write_becomes_zeros(
    run: Runs, fleet: dict[str, str], tmp_path: Path
) -> None:
    piece = tmp_path / "piece"
    piece.write_bytes(b"p" * 700)
    assert json.loads(run("write-disk", fleet["os"], "--offset", "512", "--from", piece)) == {"written": 1024}
    content = bytearray(b"s" * MIB + bytes(MIB))
    content[512:1536] = b"p" * 700 + bytes(324)
    assert digest(run, fleet["os"]) == sha256(content)


def test_a_write_beyond_the_end_is_refused(
    served: AzsimProcess, fleet: dict[str, str], tmp_path: Path
) -> None:
    piece = tmp_path / "piece"
    piece.write_bytes(b"p" * 1024)
    done = azsim(served, "write-disk", fleet["os"], "--offset", str(2 * MIB), "--from", piece)
    assert done.returncode == 1
    assert f"disk {fleet['os']} has {2 * MIB} bytes" in done.stderr


def test_disks_come_and_go(run: Runs, fleet: dict[str, str], tmp_path: Path) -> None:
    image = tmp_path / "images" / "small.img"
    extra = f"{fleet['vm']}-extra"
    attached = run("attach-disk", fleet["vm"], "--name", extra, "--image", image, "--sku", "Standard_LRS")
    assert json.loads(attached) == {"lun": 1}
    (disk,) = rows(run, "disks", name=extra)
    assert (disk["sku"], disk["size"]) == ("Standard_LRS", MIB)
    assert rows(run, "vms", name=fleet["vm"])[0]["disks"] == [fleet["os"], "vhd", extra]
    run("detach-disk", fleet["vm"], "--name", extra)
    assert rows(run, "disks", name=extra)[0]["owner"] is None
    run("delete-disk", extra)
    run("delete-disk", fleet["os"])
    assert rows(run, "vms", name=fleet["vm"])[0]["disks"] == ["vhd"]
    assert rows(run, "disks", name=extra) + rows(run, "disks", name=fleet["os"]) == []


def test_a_replaced_disk_keeps_its_name_and_bytes(run: Runs, fleet: dict[str, str]) -> None:
    before = digest(run, fleet["os"])
    swapped = json.loads(run("replace-disk", fleet["os"]))
    assert swapped["before"] != swapped["after"]
    (disk,) = rows(run, "disks", name=fleet["os"])
    assert disk["unique_id"] == swapped["after"]
    assert disk["owner"].endswith(fleet["vm"])
    assert digest(run, fleet["os"]) == before


def test_a_vm_is_switched_tagged_moved_and_deleted(run: Runs, fleet: dict[str, str]) -> None:
    run("power", fleet["vm"], "deallocated")
    run("tag", fleet["vm"], "tier=gold", "backup=")
    run("move-vm", fleet["vm"], "--resource-group", "elsewhere", "--name", f"{fleet['vm']}-moved")
    (vm,) = rows(run, "vms", name=f"{fleet['vm']}-moved")
    assert (vm["power"], vm["tags"]) == ("deallocated", {"tier": "gold"})
    assert "/resourceGroups/elsewhere/" in vm["id"]
    assert rows(run, "disks", name=fleet["os"])[0]["owner"] == vm["id"]
    run("delete-vm", vm["name"], "--with-disks")
    assert rows(run, "vms", name=vm["name"]) + rows(run, "disks", name=fleet["os"]) == []


def test_the_clock_advances(run: Runs) -> None:
    before = json.loads(run("clock"))["ahead_seconds"]
    assert json.loads(run("clock", "--advance", "600"))["ahead_seconds"] == before + 600


def test_faults_are_added_listed_and_cleared(run: Runs) -> None:
    added = run("fault", "add", "status", "status=503", "code=ServerBusy", "--plane", "blob", "--times", "0")
    (rule,) = json.loads(run("fault", "list"))
    assert rule["id"] == added.strip()
    assert (rule["options"], rule["times"]) == ({"status": 503, "code": "ServerBusy"}, None)
    assert run("fault", "clear", rule["id"]).strip() == "1"
    assert json.loads(run("fault", "list")) == []


def test_the_inventory_reads_like_a_list(run: Runs, fleet: dict[str, str]) -> None:
    lines = run("inventory").splitlines()
    assert any(line.startswith(f"  name={fleet['os']}  ") for line in lines)
    assert any(line.startswith("snapshots: ") for line in lines)


@pytest.mark.parametrize(
    ("fleet_file", "complaint"),
    [
        ({"vms": [{"name": "v", "colour": "red"}]}, "unknown colour"),
        ({"vms": [{"disks": []}]}, "'name' is missing"),
        ({"disks": [{"name": "d", "size": 1000}]}, "multiple of 512"),
        ({"disks": [{"name": "d", "image": "absent.img"}]}, "absent.img"),
    ],
)
def test_a_fleet_that_means_nothing_is_refused(
    served: AzsimProcess, tmp_path: Path, fleet_file: dict[str, Any], complaint: str
) -> None:
    (tmp_path / "FLEET.json").write_text(json.dumps(fleet_file))
    done = azsim(served, "create-fleet", tmp_path / "FLEET.json")
    assert done.returncode == 1
    assert complaint in done.stderr


def test_an_unknown_disk_is_named(served: AzsimProcess) -> None:
    done = azsim(served, "digest-disk", "nobody")
    assert done.returncode == 1
    assert "'nobody'" in done.stderr
    assert azsim(served, "digest-disk", "no/such/blob").returncode == 1
