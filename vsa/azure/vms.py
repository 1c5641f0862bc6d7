"""Discovery of VMs through Azure Resource Manager.

Source: https://learn.microsoft.com/rest/api/compute/virtual-machines/list-all, whose `statusOnly=true` gives
the run-time status of all VMs of the subscription.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from vsa.azure.connection import AzureConnection
from vsa.azure.errors import azure_errors
from vsa.azure.listing import listed
from vsa.azure.resource_id import ResourceId
from vsa.azure.wire import text
from vsa.errors import AzureNotFound, AzureRefused
from vsa.model import AttachedDisk, DiskRole, Vm
from vsa.stop import Stop, again

_log = logging.getLogger(__name__)

UNKNOWN = "unknown"
FEW = 20
"""Of so many VMs each one's state is asked for; that of more is in another list of them all."""


def list_vms(connection: AzureConnection, stop: Stop) -> tuple[Vm, ...]:
    """Every VM of the subscription with its power state, ordered by name.

    A VM that is deleted while the list is being read is left out: it is no longer there.
    """
    found = list(_list_all(connection, stop))
    states = _power_states(connection, stop) if len(found) > FEW else {}
    described = (_described(connection, vm, states, stop) for vm in found)
    return tuple(sorted((vm for vm in described if vm), key=lambda vm: (vm.name.lower(), vm.resource_id)))


def _list_all(connection: AzureConnection, stop: Stop, **options: str) -> Iterator[Any]:
    action = f"list VMs of subscription {connection.subscription_id}"
    return listed(connection.compute.virtual_machines.list_all(**options), action=action, stop=stop)


def _power_states(connection: AzureConnection, stop: Stop) -> dict[str, str]:
    """The power states of VMs by their ids in lower case, in as many requests as the list of all has pages;
    those that it does not know are left out.

    One request for each VM would be thousands, which Azure throttles for minutes.
    """
    try:
        states = _list_all(connection, stop, status_only="true")
        known = ((vm.id.lower(), _state_in(view)) for vm in states if (view := vm.instance_view))
        return {key: state for key, state in known if state != UNKNOWN}
    except AzureRefused as error:
        _log.warning("each VM is asked for its state: %s", error)
        return {}


def attached_vhds(connection: AzureConnection, stop: Stop) -> tuple[str, ...]:
    """The addresses of all VHDs that VMs of the subscription have as unmanaged disks."""
    machines = _list_all(connection, stop)
    disks = (disk for vm in machines for disk in _attached_disks(vm.storage_profile))
    return tuple(disk.source for disk in disks if disk.source and not disk.managed)


def _described(connection: AzureConnection, vm: Any, states: Mapping[str, str], stop: Stop) -> Vm | None:
    state = states.get(vm.id.lower())
    if state is None:
        # Of a VM that was made between the two lists, or whose state the second did not know.
        group = ResourceId.parse(vm.id).group
        try:
            state = again(partial(_power_state, connection, group, vm.name), stop=stop)
        except AzureNotFound:
            return None
    return _describe(vm, state)


def _describe(vm: Any, power_state: str) -> Vm:
    parts = ResourceId.parse(vm.id)
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
        return _state_in(connection.compute.virtual_machines.instance_view(resource_group, name))


def _state_in(view: Any) -> str:
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
