"""One simulated Azure for the tests of its control plane; each test works in a resource group of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.mgmt.compute import models as m

from tests.azsim_process import AzsimProcess
from tests.azsim_sdk import Azure, connect

MIB = 1 << 20
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def azsim_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzsimProcess]:
    with AzsimProcess(tmp_path_factory.mktemp("azsim"), diff_boundary=8 * MIB) as process:
        yield process


@pytest.fixture(scope="session")
def _azure(azsim_process: AzsimProcess) -> Iterator[Azure]:
    azure = connect(azsim_process)
    yield azure
    azure.close()


@pytest.fixture
def azure(_azure: Azure) -> Iterator[Azure]:
    """The shared simulation; fault rules of one test never reach the next."""
    yield _azure
    _azure.control.clear_faults()


@pytest.fixture
def group() -> str:
    return f"Group-{next(_numbers)}"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A raw image of 4 MiB: data at 0, 1 MiB and 3 MiB."""
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        for offset, letter in ((0, b"a"), (MIB, b"b"), (3 * MIB, b"c")):
            file.seek(offset)
            file.write(letter * 65536)
        file.truncate(4 * MIB)
    return path


@pytest.fixture
def has_disk(azure: Azure, group: str, image: Path) -> Callable[..., m.Disk]:
    """Make an unattached managed disk; returns it as Azure tells it."""

    def make(name: str | None = None, **spec: Any) -> m.Disk:
        name = name or f"disk-{next(_numbers)}"
        disk = {"name": name, "resource_group": group, "image": str(image), **spec}
        azure.control.create_fleet({"disks": [disk]})
        return azure.compute.disks.get(group, name)

    return make


@pytest.fixture
def has_vm(azure: Azure, group: str, image: Path) -> Callable[..., m.VirtualMachine]:
    """Make a VM with an OS disk and as many data disks as asked for."""

    def make(*, data_disks: int = 0, **spec: Any) -> m.VirtualMachine:
        name = spec.pop("name", f"vm-{next(_numbers)}")
        disks = [{"name": f"{name}-{number}", "image": str(image)} for number in range(1 + data_disks)]
        vm = {"name": name, "resource_group": group, "disks": disks, **spec}
        azure.control.create_fleet({"vms": [vm]})
        return azure.compute.virtual_machines.get(group, name)

    return make


@pytest.fixture
def take(azure: Azure, group: str) -> Callable[..., m.Snapshot]:
    """Take a snapshot of a disk."""

    def snapshot(disk: m.Disk, name: str, *, incremental: bool = True, **tags: str) -> m.Snapshot:
        request = m.Snapshot(
            location=disk.location,
            tags=tags,
            creation_data=m.CreationData(create_option="Copy", source_resource_id=disk.id),
            incremental=incremental,
        )
        return azure.compute.snapshots.begin_create_or_update(group, name, request).result()

    return snapshot


@pytest.fixture
def grant(azure: Azure, group: str) -> Callable[..., str]:
    """Open a snapshot for reading; returns its SAS URL."""

    def begin(snapshot: m.Snapshot, seconds: int = 3600) -> str:
        access = m.GrantAccessData(access="Read", duration_in_seconds=seconds)
        url = azure.compute.snapshots.begin_grant_access(group, snapshot.name, access).result().access_sas
        assert url is not None
        return url

    return begin
