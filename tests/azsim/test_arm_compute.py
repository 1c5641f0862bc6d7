from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.compute import models as m

from tests.azsim_sdk import Azure

MIB = 1 << 20
GIB = 1 << 30
MakesDisk = Callable[..., m.Disk]
MakesVm = Callable[..., m.VirtualMachine]


def refusal(call: Callable[[], Any]) -> tuple[int | None, str]:
    """Status and code of the answer that refuses a call."""
    with pytest.raises(HttpResponseError) as caught:
        call()
    assert caught.value.error is not None
    return caught.value.status_code, str(caught.value.error.code)


def test_vms_are_listed_page_by_page_with_the_group_in_capitals(
    azure: Azure, group: str, has_vm: MakesVm
) -> None:
    names = {str(has_vm().name) for _ in range(5)}
    since = azure.control.last_request()
    listed = [vm for vm in azure.compute.virtual_machines.list_all() if vm.name in names]
    assert {vm.name for vm in listed} == names
    assert len(listed) == 5
    assert {str(vm.id).split("/")[4] for vm in listed} == {group.upper()}
    assert len(azure.control.requests(since=since)) > 2
    assert {vm.name for vm in azure.compute.virtual_machines.list(group)} == names


def test_a_vm_shows_disks_power_and_tags(azure: Azure, group: str, has_vm: MakesVm) -> None:
    vm = has_vm(data_disks=2, size="Standard_B2s", tags={"backup": "yes"}, power_state="deallocated")
    profile = vm.storage_profile
    assert [disk.lun for disk in profile.data_disks] == [0, 1]
    assert profile.os_disk.os_type == "Linux"
    assert profile.os_disk.managed_disk.id.lower().endswith(f"/disks/{vm.name}-0")
    assert (vm.hardware_profile.vm_size, vm.tags) == ("Standard_B2s", {"backup": "yes"})
    view = azure.compute.virtual_machines.instance_view(group, vm.name)
    assert "PowerState/deallocated" in [status.code for status in view.statuses]
    expanded = azure.compute.virtual_machines.get(group, vm.name, expand="instanceView")
    assert [status.code for status in expanded.instance_view.statuses] == [
        status.code for status in view.statuses
    ]


def test_a_vm_may_hold_managed_and_unmanaged_disks(
    azure: Azure, group: str, has_vm: MakesVm, image: Path
) -> None:
    account = group.replace("-", "").lower()
    spec = {"name": account, "resource_group": group, "sku": "Standard_LRS"}
    azure.control.create_fleet({"storage_accounts": [spec]})
    disks = [
        {"name": "os", "image": str(image), "managed": False, "account": account},
        {"name": f"{account}-data", "image": str(image)},
    ]
    profile = has_vm(disks=disks).storage_profile
    assert profile.os_disk.managed_disk is None
    assert profile.os_disk.vhd.uri == f"{azure.base_url}/{account}/vhds/os.vhd"
    assert profile.data_disks[0].vhd is None
    assert profile.data_disks[0].managed_disk.id is not None


@pytest.mark.parametrize(
    ("action", "power"),
    [("begin_power_off", "stopped"), ("begin_deallocate", "deallocated"), ("begin_start", "running")],
)
def test_power_actions_change_the_power_state(
    azure: Azure, group: str, has_vm: MakesVm, action: str, power: str
) -> None:
    vm = has_vm()
    getattr(azure.compute.virtual_machines, action)(group, vm.name).result()
    view = azure.compute.virtual_machines.instance_view(group, vm.name)
    assert view.statuses[-1].code == f"PowerState/{power}"


def test_a_vm_is_rebuilt_from_a_disk_that_exists(azure: Azure, group: str, has_disk: MakesDisk) -> None:
    disk = has_disk()
    request = m.VirtualMachine(
        location="westeurope",
        hardware_profile=m.HardwareProfile(vm_size="Standard_D2s_v3"),
        storage_profile=m.StorageProfile(
            os_disk=m.OSDisk(
                create_option="Attach",
                os_type="Linux",
                managed_disk=m.ManagedDiskParameters(id=disk.id),
            )
        ),
    )
    since = azure.control.last_request()
    vm = azure.compute.virtual_machines.begin_create_or_update(group, "rebuilt", request).result()
    assert [each["status"] for each in azure.control.requests(since=since) if each["method"] == "PUT"] == [
        201
    ]
    attached = azure.compute.disks.get(group, disk.name)
    assert (attached.managed_by, attached.disk_state) == (vm.id, "Attached")
    thief = azure.compute.virtual_machines.begin_create_or_update
    assert refusal(lambda: thief(group, "thief", request)) == (409, "ConflictingUserInput")
    azure.compute.virtual_machines.begin_delete(group, "rebuilt").result()
    assert azure.compute.disks.get(group, disk.name).disk_state == "Unattached"


def test_an_operation_is_in_progress_before_it_succeeds(
    azure: Azure, group: str, has_disk: MakesDisk
) -> None:
    disk = has_disk()
    since = azure.control.last_request()
    azure.compute.disks.begin_update(group, disk.name, m.DiskUpdate(tags={"a": "b"})).result()
    log = azure.control.requests(since=since)
    polls = [each for each in log if "/DiskOperations/" in each["path"]]
    assert [each["status"] for each in log] == [202, 200, 200, 200]
    assert len(polls) == 2


def test_an_operation_is_resumed_from_its_token(azure: Azure, group: str, has_disk: MakesDisk) -> None:
    disk = has_disk()
    begin = azure.compute.disks.begin_update
    token = begin(group, disk.name, m.DiskUpdate(tags={"a": "b"})).continuation_token()
    resumed = begin(group, disk.name, m.DiskUpdate(), continuation_token=token).result()
    assert resumed.tags == {"a": "b"}


def test_what_is_absent_is_404_and_absent_to_delete_is_fine(
    azure: Azure, group: str, has_disk: MakesDisk
) -> None:
    with pytest.raises(ResourceNotFoundError, match="ResourceGroupNotFound"):
        azure.compute.disks.get(group, "nothing")
    has_disk()
    with pytest.raises(ResourceNotFoundError, match="ResourceNotFound"):
        azure.compute.disks.get(group, "nothing")
    azure.compute.disks.begin_delete(group, "nothing").result()
    azure.compute.snapshots.begin_delete(group, "nothing").result()


def test_names_are_compared_without_regard_to_case(azure: Azure, group: str, has_disk: MakesDisk) -> None:
    disk = has_disk("MixedCase")
    assert azure.compute.disks.get(group.upper(), "mixedCASE").id == disk.id


def test_a_small_disk_is_exact_in_bytes_and_rounded_up_in_gib(has_disk: MakesDisk) -> None:
    disk = has_disk(size=5 * MIB + 512)
    assert (disk.disk_size_bytes, disk.disk_size_gb) == (5 * MIB + 512, 1)


def test_a_disk_grows_and_never_shrinks(azure: Azure, group: str, has_disk: MakesDisk) -> None:
    disk = has_disk(size=2 * GIB)
    update = azure.compute.disks.begin_update
    assert update(group, disk.name, m.DiskUpdate(disk_size_gb=3)).result().disk_size_bytes == 3 * GIB
    assert refusal(lambda: update(group, disk.name, m.DiskUpdate(disk_size_gb=1)))[0] == 400
    assert azure.compute.disks.get(group, disk.name).disk_size_bytes == 3 * GIB


def test_a_disk_made_again_under_its_name_has_another_unique_id(
    azure: Azure, group: str, has_disk: MakesDisk
) -> None:
    first = has_disk("phoenix")
    azure.compute.disks.begin_delete(group, "phoenix").result()
    assert has_disk("phoenix").unique_id != first.unique_id


def test_an_attached_disk_is_neither_exported_nor_deleted(azure: Azure, group: str, has_vm: MakesVm) -> None:
    name = f"{has_vm().name}-0"
    access = m.GrantAccessData(access="Read", duration_in_seconds=60)
    disks = azure.compute.disks
    assert refusal(lambda: disks.begin_grant_access(group, name, access)) == (409, "OperationNotAllowed")
    assert refusal(lambda: disks.begin_delete(group, name)) == (409, "OperationNotAllowed")


def test_a_disk_of_a_deallocated_vm_is_exported_but_then_the_vm_cannot_start(
    azure: Azure, group: str, has_vm: MakesVm
) -> None:
    vm = has_vm(power_state="deallocated")
    name = f"{vm.name}-0"
    assert azure.compute.disks.get(group, name).disk_state == "Reserved"
    access = m.GrantAccessData(access="Read", duration_in_seconds=60)
    azure.compute.disks.begin_grant_access(group, name, access).result()
    assert azure.compute.disks.get(group, name).disk_state == "ActiveSAS"
    start = azure.compute.virtual_machines.begin_start
    assert refusal(lambda: start(group, vm.name)) == (409, "OperationNotAllowed")
    azure.compute.disks.begin_revoke_access(group, name).result()
    start(group, vm.name).result()


def test_a_disk_copied_from_a_snapshot_has_its_bytes(
    azure: Azure, group: str, has_disk: MakesDisk, take: Callable[..., m.Snapshot]
) -> None:
    disk = has_disk()
    snapshot = take(disk, "origin")
    azure.control.clear(str(disk.name), 0, MIB)
    copy = m.Disk(
        location=disk.location,
        creation_data=m.CreationData(create_option="Copy", source_resource_id=snapshot.id),
    )
    azure.compute.disks.begin_create_or_update(group, "copied", copy).result()
    before, after = (azure.control.digest_disk(name)["sha256"] for name in ("copied", str(disk.name)))
    assert before != after


def _upload(azure: Azure, group: str, name: str, content: bytes) -> None:
    request = m.Disk(
        location="westeurope",
        creation_data=m.CreationData(create_option="Upload", upload_size_bytes=len(content)),
    )
    azure.compute.disks.begin_create_or_update(group, name, request).result()
    access = m.GrantAccessData(access="Write", duration_in_seconds=3600)
    url = azure.compute.disks.begin_grant_access(group, name, access).result().access_sas
    with azure.blob(url) as blob:
        for offset in range(0, len(content), MIB):
            piece = content[offset : offset + MIB]
            blob.upload_page(piece, offset=offset, length=len(piece))


def test_an_uploaded_disk_holds_the_bytes_before_its_footer(azure: Azure, group: str, image: Path) -> None:
    account = group.replace("-", "").lower()
    spec = {"name": account, "resource_group": group}
    unmanaged = {"name": "v", "image": str(image), "managed": False, "account": account}
    vm = {"name": f"{group}-vm", "resource_group": group, "disks": [unmanaged]}
    azure.control.create_fleet({"storage_accounts": [spec], "vms": [vm]})
    key = azure.storage.storage_accounts.list_keys(group, account).keys_property[0].value
    vhd = _downloaded(azure, f"{azure.base_url}/{account}/vhds/v.vhd", str(key))
    footer = vhd[-512:]
    assert footer.startswith(b"conectix")
    _upload(azure, group, "small", image.read_bytes() + footer)
    assert azure.compute.disks.get(group, "small").disk_state == "ActiveUpload"
    azure.compute.disks.begin_revoke_access(group, "small").result()
    disk = azure.compute.disks.get(group, "small")
    assert (disk.disk_state, disk.disk_size_bytes) == ("Unattached", 4 * MIB)
    assert azure.control.digest_disk("small") == azure.control.digest_disk(f"{account}/vhds/v.vhd")


def _downloaded(azure: Azure, url: str, key: str) -> bytes:
    from azure.storage.blob import BlobClient

    with BlobClient.from_blob_url(url, credential=key, connection_verify=azure.ca) as blob:
        return blob.download_blob(offset=0, length=4 * MIB + 512).readall()


def test_an_upload_without_a_footer_is_no_disk(azure: Azure, group: str, has_disk: MakesDisk) -> None:
    has_disk()
    _upload(azure, group, "torn", b"x" * MIB)
    revoke = azure.compute.disks.begin_revoke_access
    assert refusal(lambda: revoke(group, "torn")) == (400, "InvalidVhd")


def test_a_disk_is_imported_from_a_vhd(azure: Azure, group: str, has_vm: MakesVm, image: Path) -> None:
    account = group.replace("-", "").lower()
    azure.control.create_fleet({"storage_accounts": [{"name": account, "resource_group": group}]})
    has_vm(disks=[{"name": "os", "image": str(image), "managed": False, "account": account}])
    request = m.Disk(
        location="westeurope",
        creation_data=m.CreationData(
            create_option="Import", source_uri=f"{azure.base_url}/{account}/vhds/os.vhd"
        ),
    )
    azure.compute.disks.begin_create_or_update(group, "imported", request).result()
    assert azure.control.digest_disk("imported") == azure.control.digest_disk(f"{account}/vhds/os.vhd")


def test_a_disk_that_moves_to_another_group_is_the_same_disk_under_another_id(
    azure: Azure, group: str, has_vm: MakesVm, take: Callable[..., m.Snapshot]
) -> None:
    vm = has_vm(data_disks=1)
    for number in range(2):
        name = f"{vm.name}-{number}"
        disk = azure.compute.disks.get(group, name)
        older = take(disk, f"{name}-older")
        moved = azure.control.move_disk(str(disk.id), f"{group}-elsewhere")["id"]
        there = azure.compute.disks.get(f"{group}-elsewhere", name)
        assert (there.id, there.unique_id, there.managed_by) == (moved, disk.unique_id, disk.managed_by)
        with pytest.raises(ResourceNotFoundError):
            azure.compute.disks.get(group, name)
        newer = take(there, f"{name}-newer")
        assert newer.incremental_snapshot_family_id == older.incremental_snapshot_family_id
        assert (older.creation_data.source_resource_id, newer.creation_data.source_resource_id) == (
            disk.id,
            moved,
        )
    profile = azure.compute.virtual_machines.get(group, vm.name).storage_profile
    named = [profile.os_disk.managed_disk.id, *(disk.managed_disk.id for disk in profile.data_disks)]
    assert all(f"/{group}-elsewhere/".lower() in disk.lower() for disk in named)


def test_a_vm_that_was_made_again_of_its_disks_is_another_one(
    azure: Azure, group: str, has_vm: MakesVm
) -> None:
    vm = has_vm(data_disks=1, tags={"tier": "gold"})
    ids = azure.control.recreate_vm(str(vm.id), name=f"{vm.name}-again")
    with pytest.raises(ResourceNotFoundError):
        azure.compute.virtual_machines.get(group, vm.name)
    after = azure.compute.virtual_machines.get(group, f"{vm.name}-again")
    assert (ids["before"], ids["after"]) == (vm.vm_id, after.vm_id)
    assert after.vm_id != vm.vm_id
    assert (after.tags, after.storage_profile) == (vm.tags, vm.storage_profile)
    assert azure.compute.disks.get(group, f"{vm.name}-1").managed_by == after.id
