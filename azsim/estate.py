"""What owners and other administrators do to VMs, disks and snapshots while a backup looks elsewhere.

These operations force what ARM would refuse: a delete ends access grants and detaches first.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from azsim.arm_protocol import DISK, SNAPSHOT, STORAGE_ACCOUNT, ResourceId, Wire
from azsim.fleet import new_disk_entry
from azsim.places import find_resource, find_vm
from azsim.resources import Resource
from azsim.simulation import Simulation
from azsim.virtual_machines import disk_entries


def attach_disk(simulation: Simulation, vm: str, disk: dict[str, Any]) -> dict[str, int]:
    """Make a data disk as a fleet describes one and attach it; returns its LUN."""
    machine = find_vm(simulation, vm)
    lun = _free_lun(machine, disk.get("lun"))
    place = {"resource_group": machine.id.group, "location": machine.location}
    entry = new_disk_entry(simulation, {**place, **disk, "kind": "data", "lun": lun})
    with simulation.lock:
        # The disk took its time to load: look again at what the VM holds by now.
        machine = find_vm(simulation, vm)
        _free_lun(machine, lun)
        profile = machine.properties["storageProfile"]
        disks = [*profile["dataDisks"], entry]
        simulation.machines.save(machine.with_properties(storageProfile={**profile, "dataDisks": disks}))
    return {"lun": lun}


def detach_disk(simulation: Simulation, vm: str, name: str) -> None:
    """Take a data disk off a VM; the disk stays."""
    with simulation.lock:
        machine = find_vm(simulation, vm)
        if name not in {entry["name"] for entry in disk_entries(machine)}:
            raise ValueError(f"VM {machine.id.name} has no disk {name!r}")
        simulation.machines.save(_without_disk(machine, name))


def delete_disk(simulation: Simulation, disk: str) -> None:
    """Delete a managed disk, whatever holds it."""
    with simulation.lock:
        resource = find_resource(simulation, DISK, disk)
        simulation.access.close(resource)
        owner = resource.wire.get("managedBy")
        if owner:
            machine = find_vm(simulation, owner)
            names = [entry["name"] for entry in disk_entries(machine) if _holds(entry, resource.id)]
            for name in names:
                machine = _without_disk(machine, name)
            simulation.machines.save(machine)
        simulation.disks.remove(simulation.resources.need(resource.id))


def replace_disk(simulation: Simulation, disk: str) -> dict[str, str]:
    """Put a copy of the disk in its place: same name, same bytes, another unique id, no history.

    This is what a restore over the original or an OS disk swap looks like from outside.
    """
    with simulation.lock:
        before = find_resource(simulation, DISK, disk)
        simulation.access.close(before)
        image = simulation.pages.copy(before.sim["image"])
        after = simulation.disks.create(
            before.id,
            image,
            location=before.location,
            sku=before.wire["sku"]["name"],
            tags=before.wire.get("tags"),
            **{name: before.properties[name] for name in ("osType",) if name in before.properties},
        )
        simulation.resources.put(after.with_wire(managedBy=before.wire.get("managedBy")))
        simulation.pages.delete(before.sim["image"])
    return {"before": before.properties["uniqueId"], "after": after.properties["uniqueId"]}


def set_disk_properties(simulation: Simulation, disk: str, properties: dict[str, Any]) -> None:
    """Set ARM properties of a disk as they are, networkAccessPolicy for one."""
    with simulation.lock:
        resource = find_resource(simulation, DISK, disk)
        simulation.resources.put(resource.with_properties(**properties))


def move_disk(simulation: Simulation, disk: str, resource_group: str) -> dict[str, str]:
    """Give a managed disk another resource group, as ARM's move does: its id changes, and `uniqueId`, bytes,
    history and owner do not. Its snapshots stay where they are and keep naming the old id."""
    with simulation.lock:
        before = find_resource(simulation, DISK, disk)
        target = dataclasses.replace(before.id, group=resource_group)
        if simulation.resources.find(target) is not None:
            raise ValueError(f"disk {target} exists already")
        simulation.resources.ensure_group(target.subscription, target.group, before.location)
        simulation.resources.put(dataclasses.replace(before, id=target).with_wire(id=str(target)))
        owner = before.wire.get("managedBy")
        if owner:
            machine = find_vm(simulation, owner)
            simulation.resources.put(_naming(machine, before.id, target))
        simulation.resources.delete(before.id)
    return {"id": str(target)}


def take_snapshots(simulation: Simulation, disk: str, count: int, resource_group: str) -> list[str]:
    """Leave so many incremental snapshots of a managed disk in a resource group, as if somebody had taken
    them over days; returns their ids."""
    with simulation.lock:
        resource = find_resource(simulation, DISK, disk)
        simulation.resources.ensure_group(simulation.subscription, resource_group, resource.location)
        return simulation.snapshots.take_over_days(resource, count, resource_group)


def leave_snapshot(simulation: Simulation, disk: str, name: str, tags: dict[str, str]) -> str:
    """Leave an incremental snapshot of a managed disk beside it, as if taken long ago; returns its id."""
    with simulation.lock:
        return simulation.snapshots.take_named(str(find_resource(simulation, DISK, disk).id), name, tags)


def leave_blob_snapshot(simulation: Simulation, disk: str, metadata: dict[str, str]) -> str:
    """Leave a snapshot of an unmanaged disk's VHD, as if taken long ago; returns its moment."""
    account, container, blob = disk.split("/", 2)
    return simulation.blobs.leave_snapshot(account, container, blob, metadata)


def delete_blob(simulation: Simulation, blob: str, snapshot: str | None = None) -> None:
    """Delete a blob, `account/container/blob`, or one of its snapshots: its moment, or "newest"."""
    account, container, name = blob.split("/", 2)
    simulation.blobs.erase(account, container, name, snapshot)


def leave_blob(simulation: Simulation, blob: str, metadata: dict[str, str]) -> None:
    """Leave an empty page blob, `account/container/blob`; its container is made if absent."""
    account, container, name = blob.split("/", 2)
    simulation.blobs.leave_page_blob(account, container, name, metadata)


def delete_snapshots(simulation: Simulation, resource_group: str) -> None:
    """Delete all snapshots of a resource group that nobody reads."""
    with simulation.lock:
        for snapshot in list(simulation.resources.all(SNAPSHOT, simulation.subscription, resource_group)):
            simulation.snapshots.remove(snapshot)


def close_account(simulation: Simulation, account: str, closed: bool) -> None:
    """Close the firewall of a storage account to everybody, or open it."""
    with simulation.lock:
        resource = find_resource(simulation, STORAGE_ACCOUNT, account)
        rules = {"defaultAction": "Deny" if closed else "Allow"}
        simulation.accounts.set_network_rules(resource, rules)


def regenerate_keys(simulation: Simulation, account: str) -> None:
    """Give a storage account two new keys: what was signed with the old ones is worth nothing."""
    for key in ("key1", "key2"):
        simulation.blobs.regenerate_key(account, key)


def delete_snapshot(simulation: Simulation, snapshot: str) -> None:
    """Delete a managed disk's snapshot, open for access or not."""
    with simulation.lock:
        resource = find_resource(simulation, SNAPSHOT, snapshot)
        simulation.access.close(resource)
        simulation.snapshots.remove(simulation.resources.need(resource.id))


def end_operations(simulation: Simulation) -> int:
    """Let everything take effect that was accepted and is late; returns how many operations that ends."""
    with simulation.lock:
        ended = simulation.late.hasten()
        simulation.snapshots.settle()
        return ended


def delete_vm(simulation: Simulation, vm: str, with_disks: bool = False) -> None:
    """Delete a VM; its managed disks stay unless they are to go too. VHD blobs always stay."""
    with simulation.lock:
        machine = find_vm(simulation, vm)
        owned = [entry["managedDisk"]["id"] for entry in disk_entries(machine) if "managedDisk" in entry]
        simulation.machines.remove(machine)
        for disk in owned if with_disks else ():
            delete_disk(simulation, disk)


def move_vm(
    simulation: Simulation, vm: str, resource_group: str | None = None, name: str | None = None
) -> dict[str, str]:
    """Give a VM another resource group or name; `vmId` and the disks stay what and where they are."""
    with simulation.lock:
        machine = find_vm(simulation, vm)
        target = dataclasses.replace(
            machine.id, group=resource_group or machine.id.group, name=name or machine.id.name
        )
        if simulation.resources.find(target) is not None:
            raise ValueError(f"VM {target} exists already")
        simulation.resources.ensure_group(target.subscription, target.group, machine.location)
        simulation.machines.rename(machine, target)
    return {"id": str(target)}


def recreate_vm(simulation: Simulation, vm: str, name: str) -> dict[str, str]:
    """What people do to rename a VM, which Azure cannot: delete it and make another of the same disks."""
    with simulation.lock:
        machine = find_vm(simulation, vm)
        target = dataclasses.replace(machine.id, name=name)
        if simulation.resources.find(target) is not None:
            raise ValueError(f"VM {target} exists already")
        simulation.machines.remove(machine)
        after = simulation.machines.create(
            target,
            location=machine.location,
            size=machine.properties["hardwareProfile"]["vmSize"],
            storage_profile=machine.properties["storageProfile"],
            tags=machine.wire.get("tags"),
            power=machine.sim["power"],
        )
    return {"before": machine.properties["vmId"], "after": after.properties["vmId"]}


def power(simulation: Simulation, vm: str, state: str) -> None:
    """Make a VM running, stopped or deallocated."""
    with simulation.lock:
        simulation.machines.set_power(find_vm(simulation, vm), state)


def tag(simulation: Simulation, vm: str, tags: dict[str, str | None]) -> dict[str, str]:
    """Set tags of a VM, or take them away where the value is None; returns all of them."""
    with simulation.lock:
        machine = find_vm(simulation, vm)
        merged = {**machine.wire.get("tags", {}), **tags}
        kept = {name: value for name, value in merged.items() if value is not None}
        simulation.resources.put(machine.with_wire(tags=kept))
    return kept


def close_access(simulation: Simulation) -> dict[str, int]:
    """End every open access grant, as another administrator might."""
    closed = 0
    with simulation.lock:
        for resource_type in (DISK, SNAPSHOT):
            for resource in list(simulation.resources.all(resource_type, simulation.subscription)):
                closed += simulation.access.is_open(resource)
                simulation.access.close(resource)
    return {"closed": closed}


def _free_lun(machine: Resource, wanted: int | None) -> int:
    """The wanted LUN, or the lowest that no data disk has."""
    used = {entry["lun"] for entry in machine.properties["storageProfile"]["dataDisks"]}
    if wanted in used:
        raise ValueError(f"VM {machine.id.name}: LUN {wanted} is taken, give another")
    return next(number for number in range(64) if number not in used) if wanted is None else wanted


def _without_disk(machine: Resource, name: str) -> Resource:
    profile = dict(machine.properties["storageProfile"])
    if profile.get("osDisk", {}).get("name") == name:
        del profile["osDisk"]
    profile["dataDisks"] = [entry for entry in profile["dataDisks"] if entry["name"] != name]
    return machine.with_properties(storageProfile=profile)


def _naming(machine: Resource, before: ResourceId, after: ResourceId) -> Resource:
    """The machine with a disk's new id where it named the old one."""

    def renamed(entry: Wire) -> Wire:
        if not _holds(entry, before):
            return entry
        return {**entry, "managedDisk": {**entry["managedDisk"], "id": str(after)}}

    profile = dict(machine.properties["storageProfile"])
    if "osDisk" in profile:
        profile["osDisk"] = renamed(profile["osDisk"])
    profile["dataDisks"] = [renamed(entry) for entry in profile["dataDisks"]]
    return machine.with_properties(storageProfile=profile)


def _holds(entry: Wire, disk_id: ResourceId) -> bool:
    return bool(entry.get("managedDisk", {}).get("id", "").lower() == str(disk_id).lower())
