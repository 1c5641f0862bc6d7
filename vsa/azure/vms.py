"""Discovery of VMs through Azure Resource Manager.

Source: https://learn.microsoft.com/rest/api/compute/virtual-machines/list-all
"""

from __future__ import annotations

from functools import partial
from typing import Any

from vsa.azure.connection import AzureConnection
from vsa.azure.errors import azure_errors
from vsa.azure.resource_id import ResourceId
from vsa.azure.wire import text
from vsa.errors import AzureNotFound
from vsa.model import AttachedDisk, DiskRole, Vm
from vsa.stop import Stop, again

UNKNOWN = "unknown"


def list_vms(connection: AzureConnection, stop: Stop) -> tuple[Vm, ...]:
    """Every VM of the subscription with its power state, ordered by name.

    A VM that is deleted while the list is being read is left out: it is no longer there.
    """
    found = again(partial(_list_all, connection), stop=stop)
    described = (again(partial(_describe, connection, vm), stop=stop) for vm in found)
    return tuple(sorted((vm for vm in described if vm), key=lambda vm: (vm.name.lower(), vm.resource_id)))


def _list_all(connection: AzureConnection) -> list[Any]:
    with azure_errors(f"list VMs of subscription {connection.subscription_id}"):
        return list(connection.compute.virtual_machines.list_all())


def attached_vhds(connection: AzureConnection) -> tuple[str, ...]:
    """The addresses of all VHDs that VMs of the subscription have as unmanaged disks."""
    machines = _list_all(connection)
    disks = (disk for vm in machines for disk in _attached_disks(vm.storage_profile))
    return tuple(disk.source for disk in disks if disk.source and not disk.managed)


def _describe(connection: AzureConnection, vm: Any) -> Vm | None:
    parts = ResourceId.parse(vm.id)
    try:
        power_state = _power_state(connection, parts.group, vm.name)
    except AzureNotFound:
        return None
    storage = vm.storage_profile
    os_disk = storage.os_disk if storage else None
    return Vm(
        resource_id=vm.id,
        vm_id=vm.vm_id,
        name=vm.name,
        resource_group=parts.group,
        subscription_id=parts.subscription,
        region=vm.location,
        size=text(getattr(vm.hardware_profile, "vm_size", None)) or UNKNOWN,
        os_type=text(getattr(os_disk, "os_type", None)) or UNKNOWN,
        power_state=power_state,
        tags=dict(vm.tags or {}),
        disks=_attached_disks(storage),
    )


def _power_state(connection: AzureConnection, resource_group: str, name: str) -> str:
    with azure_errors(f"read the state of VM {name}"):
        view = connection.compute.virtual_machines.instance_view(resource_group, name)
    codes = [str(status.code) for status in view.statuses or () if status.code]
    return next((code.split("/", 1)[1] for code in codes if code.startswith("PowerState/")), UNKNOWN)


def _attached_disks(storage: Any) -> tuple[AttachedDisk, ...]:
    if storage is None:
        return ()
    disks = [_attached(storage.os_disk, DiskRole.OS)] if storage.os_disk else []
    disks += [_attached(disk, DiskRole.DATA) for disk in storage.data_disks or ()]
    return tuple(disks)


def _attached(disk: Any, role: DiskRole) -> AttachedDisk:
    # Both fields may be present; a managed disk's id decides (rest-api-specs, maximum set example).
    managed = disk.managed_disk is not None and bool(disk.managed_disk.id)
    source = disk.managed_disk.id if managed else (disk.vhd.uri if disk.vhd else "")
    sku = text(disk.managed_disk.storage_account_type) if managed else ""
    return AttachedDisk(
        name=disk.name,
        role=role,
        lun=disk.lun if role is DiskRole.DATA else None,
        managed=managed,
        source=source or "",
        size_gib=disk.disk_size_gb,
        sku=sku or None,
        ephemeral=role is DiskRole.OS and disk.diff_disk_settings is not None,
    )
