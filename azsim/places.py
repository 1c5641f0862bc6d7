"""What people type to name a VM or a disk, and the bytes behind a disk, managed or not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from azsim.arm_protocol import DISK, VIRTUAL_MACHINE, parse_resource_id
from azsim.resources import Resource
from azsim.simulation import Simulation
from azsim.vhd import FOOTER_BYTES


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk as its guest sees it: `size` bytes of one page image, without any footer."""

    label: str
    image: str
    size: int
    resource: Resource | None
    """None for an unmanaged disk."""
    blob: tuple[str, str, str] | None
    """Account, container and blob of an unmanaged disk."""

    def resized(self, size: int) -> Disk:
        return dataclasses.replace(self, size=size)


def find_disk(simulation: Simulation, text: str) -> Disk:
    """By resource id, by `account/container/blob`, or by a managed disk's name if only one has it."""
    if not text.startswith("/") and text.count("/") >= 2:
        return _unmanaged(simulation, text)
    resource = _by_name_or_id(simulation, DISK, text)
    return Disk(resource.id.name, resource.sim["image"], simulation.disks.size(resource), resource, None)


def find_vm(simulation: Simulation, text: str) -> Resource:
    """By resource id, or by name if only one VM has it."""
    return _by_name_or_id(simulation, VIRTUAL_MACHINE, text)


def find_resource(simulation: Simulation, resource_type: str, text: str) -> Resource:
    return _by_name_or_id(simulation, resource_type, text)


def _unmanaged(simulation: Simulation, text: str) -> Disk:
    account, container, blob = text.split("/", 2)
    image = simulation.blobs.blob_ref(account, container, blob)
    return Disk(text, image, simulation.pages.size(image) - FOOTER_BYTES, None, (account, container, blob))


def _by_name_or_id(simulation: Simulation, resource_type: str, text: str) -> Resource:
    if text.startswith("/"):
        return simulation.resources.need(parse_resource_id(text))
    found = [
        resource
        for resource in simulation.resources.all(resource_type, simulation.subscription)
        if resource.id.name.lower() == text.lower()
    ]
    if len(found) != 1:
        ids = ", ".join(str(resource.id) for resource in found) or "none"
        raise ValueError(f"{resource_type} {text!r}: expected exactly one of that name, found {ids}")
    return found[0]
