"""Managed disks: create (empty, copy, import, upload), read, grow, delete, grant access.

A disk's bytes are one image of the page store. `sim` keeps the image, the open grants, and `era`: how
often the disk has grown across the boundary beyond which no changes between snapshots are known.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from starlette.responses import JSONResponse, Response

from azsim.access import Access, requested_seconds, require_export_allowed, require_no_grant, requires_write
from azsim.arm import Call, ResourceKind
from azsim.arm_operations import Operations
from azsim.arm_protocol import (
    DISK,
    SNAPSHOT,
    VIRTUAL_MACHINE,
    ResourceId,
    Wire,
    bad_request,
    conflict,
    parse_resource_id,
    timestamp,
)
from azsim.blob_service import BlobService
from azsim.clock import Clock
from azsim.pages import PAGE, PageStore
from azsim.resources import Resource, Resources
from azsim.vhd import FOOTER_BYTES, check_fixed_footer

GIB = 1 << 30
_POLICIES = ("networkAccessPolicy", "publicNetworkAccess", "osType")
_PATCHABLE = (*_POLICIES, "diskIOPSReadWrite", "diskMBpsReadWrite")


class Disks:
    """The disks of the subscription."""

    def __init__(
        self,
        resources: Resources,
        operations: Operations,
        pages: PageStore,
        blobs: BlobService,
        *,
        access: Access,
        clock: Clock,
        diff_boundary: int,
    ) -> None:
        self._resources = resources
        self._operations = operations
        self._pages = pages
        self._blobs = blobs
        self._access = access
        self._clock = clock
        self._diff_boundary = diff_boundary

    def kind(self) -> ResourceKind:
        return ResourceKind(
            DISK,
            self._shown,
            {
                ("PUT", ""): self._put,
                ("PATCH", ""): self._patch,
                ("DELETE", ""): self._delete,
                ("POST", "begingetaccess"): self._begin_access,
                ("POST", "endgetaccess"): self._end_access,
            },
        )

    def create(
        self,
        disk_id: ResourceId,
        image: str,
        *,
        location: str,
        sku: str = "Standard_LRS",
        tags: Mapping[str, str] | None = None,
        creation_data: Wire | None = None,
        **properties: Any,
    ) -> Resource:
        """Register a disk over an image that is already in the page store."""
        wire = {
            "name": disk_id.name,
            "id": str(disk_id),
            "type": DISK,
            "location": location,
            "tags": dict(tags or {}),
            "sku": {"name": sku, "tier": sku.partition("_")[0].removesuffix("SSD")},
            "properties": {
                **properties,
                "creationData": creation_data or {"createOption": "Empty"},
                "diskIOPSReadWrite": 500,
                "diskMBpsReadWrite": 60,
                "encryption": {"type": "EncryptionAtRestWithPlatformKey"},
                "networkAccessPolicy": properties.get("networkAccessPolicy", "AllowAll"),
                "publicNetworkAccess": properties.get("publicNetworkAccess", "Enabled"),
                "timeCreated": timestamp(self._clock.now()),
                "provisioningState": "Succeeded",
                "uniqueId": str(uuid.uuid4()),
            },
        }
        self._resources.ensure_group(disk_id.subscription, disk_id.group, location)
        disk = Resource(disk_id, wire, {"image": image, "era": 0, "grants": []})
        self._resources.put(disk)
        return disk

    def grow(self, disk: Resource, size: int) -> Resource:
        """Make the disk `size` bytes; shrinking is refused as Azure refuses it."""
        current = self.size(disk)
        if size < current:
            raise bad_request(
                f"Disk size reduction is not supported. Current size is {current} bytes,"
                f" requested size is {size} bytes.",
                "OperationNotAllowed",
            )
        self._pages.resize(disk.sim["image"], size)
        crosses = current <= self._diff_boundary < size
        grown = disk.with_sim(era=disk.sim["era"] + crosses)
        self._resources.put(grown)
        return grown

    def size(self, disk: Resource) -> int:
        """Bytes of the disk, which need not be a whole number of GiB in the simulation."""
        footer = FOOTER_BYTES if disk.sim.get("awaits_upload") else 0
        return self._pages.size(disk.sim["image"]) - footer

    def remove(self, disk: Resource) -> None:
        require_no_grant(disk, self._access, "delete disk")
        if disk.wire.get("managedBy"):
            raise conflict(f"Disk {disk.id.name} is attached to VM {disk.wire['managedBy']}.")
        self._pages.delete(disk.sim["image"])
        self._resources.delete(disk.id)

    def shown(self, disk: Resource) -> Wire:
        return self._shown(disk, {})

    def _shown(self, disk: Resource, _query: Mapping[str, str]) -> Wire:
        size = self.size(disk)
        shown = disk.with_properties(
            diskSizeBytes=size, diskSizeGB=gib_rounded_up(size), diskState=self._state(disk)
        ).wire
        return {name: value for name, value in shown.items() if value not in ({}, None)}

    def _state(self, disk: Resource) -> str:
        if disk.sim.get("awaits_upload"):
            return "ActiveUpload" if self._access.is_open(disk) else "ReadyToUpload"
        if self._access.is_open(disk):
            return "ActiveSAS"
        owner = disk.wire.get("managedBy")
        if not owner:
            return "Unattached"
        return "Reserved" if self._owner_power(owner) == "deallocated" else "Attached"

    def _owner_power(self, owner: str) -> str:
        machine = self._resources.find(parse_resource_id(owner))
        assert machine is not None and machine.id.type == VIRTUAL_MACHINE
        return str(machine.sim["power"])

    def _put(self, call: Call) -> Response:
        group = self._resources.need_group(call.id.subscription, call.id.group)
        existing = self._resources.find(call.id)
        if existing is not None:
            require_same_source(existing, call.body)
            return self._update(call, existing)
        properties = dict(call.body.get("properties", {}))
        creation = properties.pop("creationData", None)
        if not isinstance(creation, dict) or "createOption" not in creation:
            raise bad_request("Required parameter 'disk.properties.creationData' is missing (null).")
        image = self._image_for(creation, properties.pop("diskSizeGB", None))
        disk = self.create(
            call.id,
            image,
            location=str(call.body.get("location", group["location"])),
            sku=call.body.get("sku", {}).get("name", "Standard_LRS"),
            tags=call.body.get("tags"),
            creation_data=creation,
            **{name: properties[name] for name in _POLICIES if name in properties},
        )
        if creation["createOption"] == "Upload":
            disk = disk.with_sim(awaits_upload=True)
        if "zones" in call.body:
            disk = disk.with_wire(zones=call.body["zones"])
        self._resources.put(disk)
        return self._accepted(call, disk, accepted_put_body(call))

    def _image_for(self, creation: Wire, size_gib: int | None) -> str:
        """A new image with the bytes that `creationData` asks for."""
        match creation["createOption"]:
            case "Empty":
                if not size_gib:
                    raise bad_request("Required parameter 'disk.properties.diskSizeGB' is missing (null).")
                return self._pages.create(size_gib * GIB)
            case "Upload":
                return self._pages.create(_upload_size(creation))
            case "Copy":
                image = self._copied(parse_resource_id(str(creation.get("sourceResourceId"))))
            case "Import":
                image = self._imported(str(creation.get("sourceUri")))
            case other:
                raise bad_request(f"azsim creates disks by Empty, Upload, Copy and Import, not '{other}'.")
        if size_gib and size_gib * GIB > self._pages.size(image):
            self._pages.resize(image, size_gib * GIB)
        return image

    def _copied(self, source_id: ResourceId) -> str:
        source = self._resources.need(source_id)
        if source.id.type == SNAPSHOT:
            return self._pages.copy(source.sim["version"])
        if source.id.type == DISK:
            return self._pages.copy(source.sim["image"])
        raise bad_request(f"'{source_id}' is neither a disk nor a snapshot.")

    def _imported(self, uri: str) -> str:
        """The bytes of a VHD in one of our storage accounts, without its footer."""
        address = urlsplit(uri)
        account, container, blob = address.path.lstrip("/").split("/", 2)
        snapshot = parse_qs(address.query).get("snapshot", [None])[0]
        if snapshot is not None:
            raise bad_request("azsim imports blobs, not blob snapshots: copy the snapshot to a blob first.")
        image = self._pages.copy(self._blobs.blob_ref(account, container, unquote(blob)))
        self._pages.resize(image, self._pages.size(image) - FOOTER_BYTES)
        return image

    def _patch(self, call: Call) -> Response:
        return self._update(call, self._resources.need(call.id))

    def _update(self, call: Call, disk: Resource) -> Response:
        wanted = call.body.get("properties", {})
        size_gib = wanted.get("diskSizeGB")
        if size_gib and size_gib != gib_rounded_up(self.size(disk)):
            disk = self.grow(disk, size_gib * GIB)
        disk = disk.with_properties(**{name: wanted[name] for name in _PATCHABLE if name in wanted})
        if "tags" in call.body:
            disk = disk.with_wire(tags=call.body["tags"])
        self._resources.put(disk)
        body = accepted_patch_body(disk, diskSizeGB=gib_rounded_up(self.size(disk)))
        return self._accepted(call, disk, body)

    def _delete(self, call: Call) -> Response:
        disk = self._resources.find(call.id)
        if disk is None:
            return Response(status_code=204)
        self.remove(disk)
        return Response(status_code=202, headers=self._start(call, disk))

    def _begin_access(self, call: Call) -> Response:
        disk = self._resources.need(call.id)
        seconds, write = requested_seconds(call.body), requires_write(call.body)
        require_export_allowed(disk)
        state = self._state(disk)
        if state == "Attached":
            raise conflict(
                f"Disk {disk.id.name} is attached to running VM {disk.wire['managedBy']}:"
                " snapshot it, or deallocate the VM first."
            )
        if write != bool(disk.sim.get("awaits_upload")):
            raise conflict(f"{call.body['access']} access is not allowed while disk state is {state}.")
        group = f"disk:{disk.properties['uniqueId']}"
        output = self._access.open(
            disk, disk.sim["image"], size=self.size(disk), group=group, seconds=seconds, write=write
        )
        return Response(status_code=202, headers=self._start(call, disk, output))

    def _end_access(self, call: Call) -> Response:
        disk = self._resources.need(call.id)
        if self._access.is_open_for_writing(disk):
            disk = self._uploaded(disk)
        self._access.close(disk)
        return Response(status_code=202, headers=self._start(call, disk))

    def _uploaded(self, disk: Resource) -> Resource:
        """Accept an upload that ends in the footer of a VHD of its size, and take the footer off."""
        image, size = disk.sim["image"], self.size(disk)
        try:
            stated = check_fixed_footer(self._pages.read(image, size, FOOTER_BYTES))
        except ValueError as error:
            raise bad_request(
                f"Disk {disk.id.name} was uploaded without a footer: {error}.", "InvalidVhd"
            ) from error
        if stated != size:
            raise bad_request(f"The footer states {stated} bytes, the disk has {size}.", "InvalidVhd")
        self._pages.resize(image, size)
        return disk.with_sim(awaits_upload=False)

    def _accepted(self, call: Call, disk: Resource, body: Wire) -> Response:
        return JSONResponse(body, 202, headers=self._start(call, disk, self.shown(disk)))

    def _start(self, call: Call, disk: Resource, output: Wire | None = None) -> dict[str, str]:
        return self._operations.start(
            call.id.subscription, disk.location, api_version=call.api_version, output=output
        )


def gib_rounded_up(size: int) -> int:
    return -(-size // GIB)


def require_same_source(existing: Resource, body: Wire) -> None:
    """A PUT on a resource that exists updates it; it cannot become a copy of something else."""
    wanted = body.get("properties", {}).get("creationData", {})
    present = existing.properties["creationData"]
    for name in ("createOption", "sourceResourceId", "sourceUri"):
        if str(wanted.get(name, "")).lower() != str(present.get(name, "")).lower():
            raise conflict(
                f"Changing property 'creationData.{name}' of {existing.id.name} is not allowed.",
                "PropertyChangeNotAllowed",
            )


def accepted_put_body(call: Call) -> Wire:
    """What a 202 to a PUT shows: the request, and that work goes on."""
    properties = {**call.body.get("properties", {}), "provisioningState": "Updating", "isArmResource": True}
    return {"name": call.id.name, **call.body, "properties": properties}


def accepted_patch_body(resource: Resource, **properties: Any) -> Wire:
    """What a 202 to a PATCH shows."""
    return {
        "name": resource.id.name,
        "location": resource.location,
        "sku": resource.wire["sku"],
        "properties": {
            "creationData": resource.properties["creationData"],
            **properties,
            "provisioningState": "Updating",
            "isArmResource": True,
        },
    }


def _upload_size(creation: Wire) -> int:
    """`uploadSizeBytes`: the disk and its 512-byte VHD footer. Azure's 20 MiB minimum is not asked for."""
    size = creation.get("uploadSizeBytes")
    if not isinstance(size, int) or size <= FOOTER_BYTES or size % PAGE:
        raise bad_request(
            f"'uploadSizeBytes' must be the disk's size plus a footer of {FOOTER_BYTES} bytes, got {size}."
        )
    return size
