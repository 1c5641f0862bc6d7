"""Virtual machines: shape, power, and which disks they hold.

Only what a backup meets: a machine is its disks, its power state and its tags. `sim` keeps the power
state; the disks know their owner by `managedBy`, as in Azure.
"""

from __future__ import annotations

import copy
import dataclasses
import uuid
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from starlette.responses import JSONResponse, Response

from azsim.access import Access
from azsim.arm import Call, ResourceKind
from azsim.arm_operations import Operations
from azsim.arm_protocol import (
    VIRTUAL_MACHINE,
    ResourceId,
    Wire,
    bad_request,
    conflict,
    parse_resource_id,
    timestamp,
)
from azsim.clock import Clock
from azsim.resources import Resource, Resources

POWER_STATES = ("running", "stopped", "deallocated")
_ACTIONS = {"start": "running", "restart": "running", "poweroff": "stopped", "deallocate": "deallocated"}


class VirtualMachines:
    """The machines of the subscription."""

    def __init__(self, resources: Resources, operations: Operations, access: Access, clock: Clock) -> None:
        self._resources = resources
        self._operations = operations
        self._access = access
        self._clock = clock

    def kind(self) -> ResourceKind:
        powers = {("POST", action): partial(self._change_power, power) for action, power in _ACTIONS.items()}
        return ResourceKind(
            VIRTUAL_MACHINE,
            self._shown,
            {
                ("PUT", ""): self._put,
                ("PATCH", ""): self._patch,
                ("DELETE", ""): self._delete,
                ("GET", "instanceview"): self._instance_view,
                **powers,
            },
        )

    def create(
        self,
        vm_id: ResourceId,
        *,
        location: str,
        size: str,
        storage_profile: Wire,
        tags: Mapping[str, str] | None = None,
        power: str = "running",
        zones: list[str] | None = None,
    ) -> Resource:
        """Register a machine and attach its managed disks."""
        self._resources.ensure_group(vm_id.subscription, vm_id.group, location)
        wire = {
            "name": vm_id.name,
            "id": str(vm_id),
            "type": VIRTUAL_MACHINE,
            "location": location,
            **({"tags": dict(tags)} if tags else {}),
            **({"zones": zones} if zones else {}),
            "properties": {
                "vmId": str(uuid.uuid4()),
                "hardwareProfile": {"vmSize": size},
                "storageProfile": storage_profile,
                "provisioningState": "Succeeded",
                "timeCreated": timestamp(self._clock.now()),
            },
        }
        machine = Resource(vm_id, wire, {"power": power})
        self.save(machine)
        return machine

    def save(self, machine: Resource) -> None:
        """Keep the machine; its managed disks become owned by it, disks it no longer names are freed."""
        before = self._resources.find(machine.id)
        old = dict(self._owned(before)) if before else {}
        new = dict(self._owned(machine))
        for key in new.keys() - old.keys():
            self._require_attachable(new[key], machine)
        self._resources.put(machine)
        for key in old.keys() - new.keys():
            self._resources.put(old[key].with_wire(managedBy=None))
        for disk in new.values():
            self._resources.put(disk.with_wire(managedBy=str(machine.id)))

    def remove(self, machine: Resource) -> None:
        """Delete the machine; its disks stay, unattached, which is Azure's default."""
        for disk in dict(self._owned(machine)).values():
            self._resources.put(disk.with_wire(managedBy=None))
        self._resources.delete(machine.id)

    def rename(self, machine: Resource, target: ResourceId) -> None:
        """Give the machine another id; `vmId`, the disks and open grants stay as they are."""
        renamed = dataclasses.replace(machine, id=target).with_wire(id=str(target), name=target.name)
        self._resources.put(renamed)
        for disk in dict(self._owned(machine)).values():
            self._resources.put(disk.with_wire(managedBy=str(target)))
        self._resources.delete(machine.id)

    def set_power(self, machine: Resource, power: str) -> Resource:
        if power not in POWER_STATES:
            raise bad_request(f"power state '{power}' is unknown: use one of {', '.join(POWER_STATES)}")
        if power == "running":
            for disk in dict(self._owned(machine)).values():
                if self._access.is_open(disk):
                    raise conflict(
                        f"VM {machine.id.name} cannot start: disk {disk.id.name} has an active shared"
                        " access signature."
                    )
        changed = machine.with_sim(power=power)
        self._resources.put(changed)
        return changed

    def _owned(self, machine: Resource) -> Iterator[tuple[str, Resource]]:
        for entry in disk_entries(machine):
            managed = entry.get("managedDisk", {}).get("id")
            if managed:
                disk = self._resources.need(parse_resource_id(managed))
                yield disk.id.key, disk

    def _require_attachable(self, disk: Resource, machine: Resource) -> None:
        owner = disk.wire.get("managedBy")
        if owner and owner.lower() != str(machine.id).lower():
            raise conflict(
                f"Disk '{disk.id.name}' cannot be attached as the disk is already owned by VM '{owner}'.",
                "ConflictingUserInput",
            )
        if disk.sim.get("awaits_upload") or self._access.is_open(disk):
            raise conflict(f"Disk '{disk.id.name}' cannot be attached while it is open for access.")

    def _shown(self, machine: Resource, query: Mapping[str, str]) -> Wire:
        shown = copy.deepcopy(machine.wire)
        for entry in _entries(shown["properties"]["storageProfile"]):
            managed = entry.get("managedDisk", {}).get("id")
            if managed:
                entry["managedDisk"]["id"] = parse_resource_id(managed).shouted()
        wants_view = "instanceview" in query.get("$expand", "").lower()
        if wants_view or query.get("statusOnly", "").lower() == "true":
            shown["properties"]["instanceView"] = self._view(machine)
        return shown

    def _view(self, machine: Resource) -> Wire:
        ready = {"level": "Info", "displayStatus": "Provisioning succeeded"}
        power = machine.sim["power"]
        return {
            "disks": [
                {"name": entry["name"], "statuses": [{"code": "ProvisioningState/succeeded", **ready}]}
                for entry in disk_entries(machine)
            ],
            "statuses": [
                {"code": "ProvisioningState/succeeded", **ready},
                {"code": f"PowerState/{power}", "level": "Info", "displayStatus": f"VM {power}"},
            ],
        }

    def _instance_view(self, call: Call) -> Response:
        return JSONResponse(self._view(self._resources.need(call.id)))

    def _put(self, call: Call) -> Response:
        group = self._resources.need_group(call.id.subscription, call.id.group)
        existing = self._resources.find(call.id)
        if existing is not None:
            machine = self._updated(existing, call.body)
        else:
            properties = call.body.get("properties", {})
            machine = self.create(
                call.id,
                location=str(call.body.get("location", group["location"])),
                size=properties.get("hardwareProfile", {}).get("vmSize", "Standard_D2s_v3"),
                storage_profile=_attached_profile(properties.get("storageProfile", {})),
                tags=call.body.get("tags"),
                zones=call.body.get("zones"),
            )
        headers = self._start(call, machine, self._shown(machine, {}))
        del headers["location"]
        state = "Updating" if existing else "Creating"
        shown = self._shown(machine.with_properties(provisioningState=state), {})
        return JSONResponse(shown, 200 if existing else 201, headers=headers)

    def _patch(self, call: Call) -> Response:
        machine = self._updated(self._resources.need(call.id), call.body)
        return JSONResponse(self._shown(machine, {}))

    def _updated(self, machine: Resource, body: Wire) -> Resource:
        properties = body.get("properties", {})
        if "storageProfile" in properties:
            present = machine.properties["storageProfile"]
            profile = _attached_profile({**present, **properties["storageProfile"]})
            machine = machine.with_properties(storageProfile=profile)
        if "hardwareProfile" in properties:
            machine = machine.with_properties(hardwareProfile=properties["hardwareProfile"])
        if "tags" in body:
            machine = machine.with_wire(tags=body["tags"])
        self.save(machine)
        return machine

    def _delete(self, call: Call) -> Response:
        machine = self._resources.find(call.id)
        if machine is None:
            return Response(status_code=204)
        self.remove(machine)
        return Response(status_code=202, headers=self._start(call, machine))

    def _change_power(self, power: str, call: Call) -> Response:
        machine = self.set_power(self._resources.need(call.id), power)
        return Response(status_code=202, headers=self._start(call, machine))

    def _start(self, call: Call, machine: Resource, output: Wire | None = None) -> dict[str, str]:
        return self._operations.start(
            call.id.subscription,
            machine.location,
            api_version=call.api_version,
            output=output,
            collection="operations",
        )


def disk_entries(machine: Resource) -> list[Wire]:
    """The OS disk, then the data disks, as in the storage profile."""
    return _entries(machine.properties["storageProfile"])


def _entries(profile: Wire) -> list[Wire]:
    entries: list[Wire] = [profile["osDisk"]] if "osDisk" in profile else []
    return entries + list(profile.get("dataDisks", []))


def _attached_profile(profile: Wire) -> Wire:
    """A requested profile with what Azure fills in; azsim attaches disks and makes none from images."""
    for entry in _entries(profile):
        if entry.get("createOption") != "Attach" and "managedDisk" not in entry and "vhd" not in entry:
            raise bad_request(
                f"Disk entry {entry.get('name')!r}: azsim attaches disks that exist (createOption Attach"
                " with managedDisk.id or vhd.uri) and creates none from images."
            )
    if "osDisk" in profile and "osType" not in profile["osDisk"]:
        raise bad_request("Required parameter 'osDisk.osType' is missing (null).")
    filled = copy.deepcopy(profile)
    for entry in _entries(filled):
        entry.setdefault("name", _disk_name(entry))
        entry.setdefault("caching", "None")
    filled.setdefault("dataDisks", [])
    return filled


def _disk_name(entry: dict[str, Any]) -> str:
    address = entry.get("managedDisk", {}).get("id") or entry.get("vhd", {}).get("uri", "")
    return str(address).rsplit("/", 1)[-1].removesuffix(".vhd")
