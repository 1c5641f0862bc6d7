"""Fleets: storage accounts, VMs and disks described in one JSON document.

```
{"location": "westeurope", "resource_group": "rg1",            defaults for everything below
 "storage_accounts": [{"name", "resource_group", "location", "sku", "kind", "tags"}],
 "disks": [{"name", "resource_group", ..., as a disk of a VM}],   attached to nothing
 "vms": [{"name", "resource_group", "location", "size", "os_type", "tags", "power_state",
    "zones", "disks": [{
      "name", "kind": "os"|"data", "lun", "caching", "image": raw image file, "size": bytes,
      "managed": true, "sku", "tags", "zones", "properties": {more of the disk's ARM properties}
    | "managed": false, "account", "container", "blob"}]}]}
```
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from azsim.arm_protocol import DISK, STORAGE_ACCOUNT, VIRTUAL_MACHINE, ResourceId, Wire
from azsim.image_files import load_image_file, size_in_pages
from azsim.pages import PAGE
from azsim.resources import Resource
from azsim.simulation import Simulation
from azsim.unmanaged import grow_vhd

Spec = dict[str, Any]

_TOP = {"location", "resource_group", "storage_accounts", "disks", "vms"}
_ACCOUNT = {"name", "resource_group", "location", "sku", "kind", "tags"}
_MACHINE = {
    "name", "resource_group", "location", "size", "os_type", "tags", "power_state", "zones", "disks",
}  # fmt: skip
_DISK = {
    "name", "kind", "lun", "caching", "image", "size", "managed", "sku", "tags", "zones", "properties",
    "account", "container", "blob", "resource_group", "location", "os_type",
}  # fmt: skip


def create_fleet(simulation: Simulation, fleet: Spec) -> dict[str, list[str]]:
    """Create everything the fleet names; returns the new ids. Image paths must be absolute."""
    _require_known("fleet", fleet, _TOP)
    defaults = {
        "resource_group": fleet.get("resource_group", "rg1"),
        "location": fleet.get("location", "westeurope"),
    }
    return {
        "storage_accounts": [
            create_account(simulation, {**defaults, **spec}) for spec in fleet.get("storage_accounts", [])
        ],
        "disks": [str(_managed_disk(simulation, {**defaults, **spec}).id) for spec in fleet.get("disks", [])],
        "vms": [create_vm(simulation, {**defaults, **spec}) for spec in fleet.get("vms", [])],
    }


def create_account(simulation: Simulation, spec: Spec) -> str:
    _require_known("storage account", spec, _ACCOUNT)
    account_id = _id(simulation, STORAGE_ACCOUNT, spec)
    options = {name: spec[name] for name in ("sku", "kind", "tags") if name in spec}
    with simulation.lock:
        simulation.accounts.create(account_id, location=spec["location"], **options)
    return str(account_id)


def create_vm(simulation: Simulation, spec: Spec) -> str:
    """Make the disks, then the VM that holds them; returns its id."""
    _require_known("virtual machine", spec, _MACHINE)
    vm_id = _id(simulation, VIRTUAL_MACHINE, spec)
    _require_new(simulation, vm_id)
    inherited = {name: spec[name] for name in ("resource_group", "location", "os_type") if name in spec}
    disks = [{**inherited, **disk} for disk in _with_places(spec.get("disks", []))]
    entries = [(disk["kind"], new_disk_entry(simulation, disk)) for disk in disks]
    profile: Wire = {"dataDisks": [entry for kind, entry in entries if kind == "data"]}
    for entry in (entry for kind, entry in entries if kind == "os"):
        profile["osDisk"] = {"osType": spec.get("os_type", "Linux"), **entry}
    with simulation.lock:
        simulation.machines.create(
            vm_id,
            location=spec["location"],
            size=spec.get("size", "Standard_D2s_v3"),
            storage_profile=profile,
            tags=spec.get("tags"),
            power=spec.get("power_state", "running"),
            zones=spec.get("zones"),
        )
    return str(vm_id)


def _with_places(disks: Iterable[Spec]) -> Iterable[Spec]:
    """Fill in what is left out: the first disk is the OS disk, data disks get the next free LUN."""
    disks = [{"kind": "data" if number else "os", **disk} for number, disk in enumerate(disks)]
    taken = {disk.get("lun") for disk in disks}
    free = iter(lun for lun in range(64) if lun not in taken)
    for disk in disks:
        yield {**disk, "lun": next(free)} if disk["kind"] == "data" and disk.get("lun") is None else disk


def new_disk_entry(simulation: Simulation, spec: Spec) -> Wire:
    """Make one disk and return the entry of a storage profile that attaches it."""
    if spec.get("kind") not in ("os", "data"):
        raise ValueError(f"disk {spec.get('name')!r}: kind is {spec.get('kind')!r}, expected os or data")
    entry: Wire = {
        "name": spec["name"],
        "createOption": "Attach",
        "caching": spec.get("caching", "None"),
        **({"lun": spec["lun"]} if spec["kind"] == "data" else {}),
    }
    if spec.get("managed", True):
        disk = _managed_disk(simulation, spec)
        sku = disk.wire["sku"]["name"]
        return {**entry, "managedDisk": {"id": str(disk.id), "storageAccountType": sku}}
    return {**entry, "vhd": {"uri": _unmanaged_disk(simulation, spec)}}


def _managed_disk(simulation: Simulation, spec: Spec) -> Resource:
    _require_known("disk", spec, _DISK)
    image = _loaded_image(simulation, spec)
    properties = dict(spec.get("properties", {}))
    if spec.get("kind") == "os":
        properties.setdefault("osType", spec.get("os_type", "Linux"))
    with simulation.lock:
        disk_id = _id(simulation, DISK, spec)
        _require_new(simulation, disk_id)
        disk = simulation.disks.create(
            disk_id,
            image,
            location=spec["location"],
            sku=spec.get("sku", "Premium_LRS"),
            tags=spec.get("tags"),
            **properties,
        )
        if "zones" in spec:
            disk = disk.with_wire(zones=spec["zones"])
            simulation.resources.put(disk)
    return disk


def _loaded_image(simulation: Simulation, spec: Spec) -> str:
    """A page image with the file's bytes, `size` bytes long if that is more."""
    path = Path(spec["image"]) if "image" in spec else None
    size = max(int(spec.get("size", 0)), size_in_pages(path) if path else 0)
    if size <= 0 or size % PAGE:
        raise ValueError(
            f"disk {spec['name']!r}: give an image file, or a size that is a multiple of {PAGE}; got {size}"
        )
    image = simulation.pages.create(size)
    if path is not None:
        load_image_file(simulation.pages, image, path)
    return image


def _unmanaged_disk(simulation: Simulation, spec: Spec) -> str:
    """Put the image file as a VHD; returns the blob's address."""
    _require_known("disk", spec, _DISK)
    for needed in ("account", "image"):
        if needed not in spec:
            raise ValueError(f"unmanaged disk {spec['name']!r}: {needed!r} is missing")
    place = (spec["account"], spec.get("container", "vhds"), spec.get("blob", f"{spec['name']}.vhd"))
    path = Path(spec["image"])
    simulation.blobs.put_page_blob_from_image(*place, path)
    if spec.get("size", 0) > size_in_pages(path):
        grow_vhd(simulation, *place, spec["size"])
    return f"{simulation.base_url}/{'/'.join(place)}"


def _id(simulation: Simulation, resource_type: str, spec: Spec) -> ResourceId:
    return ResourceId(simulation.subscription, spec["resource_group"], resource_type, spec["name"])


def _require_new(simulation: Simulation, resource_id: ResourceId) -> None:
    if simulation.resources.find(resource_id) is not None:
        raise ValueError(f"{resource_id} exists already: give another name or resource group")


def _require_known(what: str, spec: Spec, known: set[str]) -> None:
    """A misspelt key would silently give another fleet than the one that was meant."""
    unknown = sorted(spec.keys() - known)
    if unknown:
        raise ValueError(f"{what} {spec.get('name', '')!r}: unknown {', '.join(unknown)}")
    if what != "fleet" and "name" not in spec:
        raise ValueError(f"{what}: 'name' is missing in {spec!r}")
