"""Snapshots of managed disks: families, limits, background copy, access.

Rules: "Create an incremental snapshot for managed disks" (500 per disk, 7 in five minutes, family and
source unique id, Premium SSD v2 and Ultra copied in the background).
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping

from starlette.responses import JSONResponse, Response

from azsim.access import Access, requested_seconds, require_export_allowed, require_no_grant, requires_write
from azsim.arm import Call, ResourceKind
from azsim.arm_operations import Operations
from azsim.arm_protocol import (
    DISK,
    SNAPSHOT,
    ResourceId,
    Wire,
    bad_request,
    conflict,
    parse_resource_id,
    timestamp,
)
from azsim.clock import Clock
from azsim.disks import accepted_patch_body, accepted_put_body, gib_rounded_up, require_same_source
from azsim.documents import Documents
from azsim.late import Change, Effect, LateEffects, Lateness
from azsim.pages import PageStore
from azsim.resources import Resource, Resources

MAX_PER_DISK = 500
MAX_PER_WINDOW = 7
WINDOW = dt.timedelta(minutes=5)
_BACKGROUND_SKUS = ("UltraSSD_LRS", "PremiumV2_LRS")
_RECENT = "snapshot_creations"


class Snapshots:
    """The snapshots of the subscription. `background_seconds` of virtual time complete a slow copy."""

    def __init__(
        self,
        resources: Resources,
        operations: Operations,
        late: LateEffects,
        pages: PageStore,
        *,
        access: Access,
        clock: Clock,
        documents: Documents,
        background_seconds: float,
    ) -> None:
        self._resources = resources
        self._operations = operations
        self._late = late
        self._pages = pages
        self._access = access
        self._clock = clock
        self._documents = documents
        self._background_seconds = background_seconds

    def kind(self) -> ResourceKind:
        return ResourceKind(
            SNAPSHOT,
            self._shown,
            {
                ("PUT", ""): self._put,
                ("PATCH", ""): self._patch,
                ("DELETE", ""): self._delete,
                ("POST", "begingetaccess"): self._begin_access,
                ("POST", "endgetaccess"): self._end_access,
            },
        )

    def remove(self, snapshot: Resource) -> None:
        require_no_grant(snapshot, self._access, "delete snapshot")
        self._erase(snapshot)

    def _erase(self, snapshot: Resource) -> None:
        self._pages.delete(snapshot.sim["version"])
        self._resources.delete(snapshot.id)

    def settle(self) -> None:
        """Let what was accepted take effect whose time has come."""
        for effect in self._late.due():
            self._late.done(effect)
            self._take_effect(effect)

    def _take_effect(self, effect: Effect) -> None:
        """A snapshot that others have deleted meanwhile is none any more."""
        if effect.change is Change.APPEARS:
            self._resources.put(Resource(effect.id, effect.details["wire"], effect.details["sim"]))
        snapshot = self._resources.find(effect.id)
        if snapshot is None:
            self._operations.fail(effect.operation, "NotFound", f"Snapshot {effect.id.name} is not there.")
            return
        match effect.change:
            case Change.APPEARS:
                self._operations.succeed_with(effect.operation, self.shown(snapshot))
            case Change.IS_MADE:
                made = snapshot.with_properties(provisioningState="Succeeded")
                self._resources.put(made)
                self._operations.succeed_with(effect.operation, self.shown(made))
            case Change.GOES:
                self._access.close(snapshot)
                self._erase(self._resources.need(effect.id))
            case Change.OPENS:
                seconds = effect.details["seconds"]
                self._operations.succeed_with(effect.operation, self._opened(snapshot, seconds))
            case Change.CLOSES:
                self._access.close(snapshot)

    def take_over_days(self, disk: Resource, count: int, group: str) -> list[str]:
        """So many incremental snapshots of a disk, without regard to how fast Azure would have taken them."""
        names = [
            ResourceId(disk.id.subscription, group, SNAPSHOT, f"{disk.id.name}-{number}")
            for number in range(count)
        ]
        for name in names:
            call = Call("PUT", name, {"properties": {}}, {})
            self._resources.put(self._taken(call, disk, incremental=True))
        return [str(name) for name in names]

    def take_named(self, disk: str, name: str, tags: Mapping[str, str]) -> str:
        """An incremental snapshot of a managed disk (its id), beside it, without regard to how fast Azure
        would have taken it; returns its id."""
        source = self._resources.need(parse_resource_id(disk))
        target = ResourceId(source.id.subscription, source.id.group, SNAPSHOT, name)
        call = Call("PUT", target, {"properties": {}, "tags": dict(tags)}, {})
        self._resources.put(self._taken(call, source, incremental=True))
        return str(target)

    def shown(self, snapshot: Resource) -> Wire:
        return self._shown(snapshot, {})

    def _shown(self, snapshot: Resource, _query: Mapping[str, str]) -> Wire:
        percent = self._completion_percent(snapshot)
        shown = snapshot.with_properties(
            diskState="ActiveSAS" if self._access.is_open(snapshot) else "Unattached",
            completionPercent=percent,
            snapshotAccessState="Available" if percent == 100.0 else "Pending",
        ).wire
        return {name: value for name, value in shown.items() if value not in ({}, None)}

    def _completion_percent(self, snapshot: Resource) -> float:
        if snapshot.properties["provisioningState"] == "Creating":
            return 0.0
        if not snapshot.sim["copied_in_background"]:
            return 100.0
        age = self._clock.now() - dt.datetime.fromisoformat(snapshot.properties["timeCreated"])
        return round(min(100.0, 100.0 * age.total_seconds() / self._background_seconds), 1)

    def _put(self, call: Call) -> Response:
        self._resources.need_group(call.id.subscription, call.id.group)
        existing = self._resources.find(call.id)
        making = self._awaited(call, Change.APPEARS, Change.IS_MADE)
        if making is not None:
            return self._joined(call, making, existing)
        if existing is not None:
            require_same_source(existing, call.body)
            return self._update(call, existing)
        disk = self._source(call.body)
        incremental = bool(call.body["properties"].get("incremental", False))
        self._require_snapshot_allowed(disk, incremental)
        snapshot = self._taken(call, disk, incremental=incremental)
        if call.late is not None:
            headers = self._made_later(call, snapshot, call.late)
        else:
            self._resources.put(snapshot)
            headers = self._start(call, snapshot, self.shown(snapshot))
        return JSONResponse(accepted_put_body(call), 202, headers=headers)

    def _made_later(self, call: Call, snapshot: Resource, late: Lateness) -> dict[str, str]:
        """Headers of the answer to a PUT whose snapshot is being made, as its disk is now."""
        if late.shown:
            self._resources.put(snapshot.with_properties(provisioningState="Creating"))
            return self._later(call, snapshot, Change.IS_MADE, late)
        return self._later(call, snapshot, Change.APPEARS, late, wire=snapshot.wire, sim=snapshot.sim)

    def _joined(self, call: Call, making: Effect, existing: Resource | None) -> Response:
        """The answer to a PUT that asks for what is being made already."""
        snapshot = existing or Resource(making.id, making.details["wire"], making.details["sim"])
        require_same_source(snapshot, call.body)
        headers = self._headers_of(call, making, snapshot)
        return JSONResponse(accepted_put_body(call), 202, headers=headers)

    def _source(self, body: Wire) -> Resource:
        """The disk that a PUT names; other ways to make a snapshot are left out."""
        creation = body.get("properties", {}).get("creationData", {})
        if creation.get("createOption") != "Copy":
            raise bad_request("azsim creates snapshots by createOption 'Copy' only.")
        source_id = parse_resource_id(str(creation.get("sourceResourceId")))
        if source_id.type != DISK:
            raise bad_request(f"azsim takes snapshots of disks only, not of '{source_id}'.")
        disk = self._resources.need(source_id)
        location = str(body.get("location", ""))
        if _region(location) != _region(disk.location):
            raise bad_request(
                f"Snapshot location '{location}' is not that of disk {disk.id.name}, '{disk.location}'."
            )
        return disk

    def _require_snapshot_allowed(self, disk: Resource, incremental: bool) -> None:
        if disk.sim.get("awaits_upload"):
            raise conflict(f"Disk {disk.id.name} is being uploaded: no snapshot can be taken of it.")
        if not incremental:
            if disk.wire["sku"]["name"] in _BACKGROUND_SKUS:
                raise bad_request(f"Disk {disk.id.name} supports incremental snapshots only.")
            return
        unique_id = disk.properties["uniqueId"]
        if sum(1 for _ in self._family(disk.id.subscription, family_of(unique_id))) >= MAX_PER_DISK:
            raise conflict(
                "The snapshot count was exceeded for a disk. Please retry the request after sometime.",
                "SnapshotsLimitReached",
            )
        self._count_creation(disk)

    def _count_creation(self, disk: Resource) -> None:
        """Deleted snapshots count too: the limit is on creations."""
        unique_id = disk.properties["uniqueId"]
        now = self._clock.now()
        stored = self._documents.get(_RECENT, unique_id) or {"times": []}
        recent = [time for time in stored["times"] if now - dt.datetime.fromisoformat(time) < WINDOW]
        if len(recent) >= MAX_PER_WINDOW:
            raise conflict(
                f"Disk {disk.id.name} had {len(recent)} incremental snapshots in the last five minutes,"
                f" the most that is allowed; the oldest of them was at {recent[0]}."
            )
        self._documents.put(_RECENT, unique_id, {"times": [*recent, now.isoformat()]})

    def _taken(self, call: Call, disk: Resource, *, incremental: bool) -> Resource:
        body = call.body
        unique_id = disk.properties["uniqueId"]
        version = self._pages.freeze(disk.sim["image"])
        size = self._pages.size(version)
        sku = body.get("sku", {}).get("name", "Standard_LRS")
        properties = {
            **({"osType": disk.properties["osType"]} if "osType" in disk.properties else {}),
            "creationData": {
                "createOption": "Copy",
                "sourceResourceId": str(disk.id),
                "sourceUniqueId": unique_id,
            },
            "diskSizeGB": gib_rounded_up(size),
            "diskSizeBytes": size,
            "encryption": {"type": "EncryptionAtRestWithPlatformKey"},
            "incremental": incremental,
            **({"incrementalSnapshotFamilyId": family_of(unique_id)} if incremental else {}),
            "networkAccessPolicy": body["properties"].get("networkAccessPolicy", "AllowAll"),
            "publicNetworkAccess": body["properties"].get("publicNetworkAccess", "Enabled"),
            "timeCreated": timestamp(self._clock.now()),
            "provisioningState": "Succeeded",
            "uniqueId": str(uuid.uuid4()),
        }
        wire = {
            "name": call.id.name,
            "id": str(call.id),
            "type": SNAPSHOT,
            "location": disk.location,
            "tags": dict(body.get("tags") or {}),
            "sku": {"name": sku, "tier": sku.partition("_")[0]},
            "properties": properties,
        }
        sim = {
            "version": version,
            "grants": [],
            # Changes are known within one family, and not across the size boundary.
            "group": f"{unique_id}:{disk.sim['era']}" if incremental else str(call.id),
            "copied_in_background": disk.wire["sku"]["name"] in _BACKGROUND_SKUS,
        }
        return Resource(call.id, wire, sim)

    def _patch(self, call: Call) -> Response:
        return self._update(call, self._resources.need(call.id))

    def _update(self, call: Call, snapshot: Resource) -> Response:
        wanted = call.body.get("properties", {})
        changes = {
            name: wanted[name] for name in ("networkAccessPolicy", "publicNetworkAccess") if name in wanted
        }
        snapshot = snapshot.with_properties(**changes)
        if "tags" in call.body:
            snapshot = snapshot.with_wire(tags=call.body["tags"])
        self._resources.put(snapshot)
        body = accepted_patch_body(snapshot, diskSizeGB=snapshot.properties["diskSizeGB"])
        return JSONResponse(body, 202, headers=self._start(call, snapshot, self.shown(snapshot)))

    def _delete(self, call: Call) -> Response:
        snapshot = self._resources.find(call.id)
        if snapshot is None:
            return Response(status_code=204)
        going = self._awaited(call, Change.GOES)
        if going is not None:
            return Response(status_code=202, headers=self._headers_of(call, going, snapshot))
        require_no_grant(snapshot, self._access, "delete snapshot")
        making = self._awaited(call, Change.IS_MADE)
        if making is not None:
            self._preempt(making)
        if call.late is not None:
            if call.late.told:
                self._resources.put(snapshot.with_properties(provisioningState="Deleting"))
            headers = self._later(call, snapshot, Change.GOES, call.late)
            return Response(status_code=202, headers=headers)
        self._erase(snapshot)
        return Response(status_code=202, headers=self._start(call, snapshot))

    def _preempt(self, effect: Effect) -> None:
        """As the compute provider does with an operation when a later one comes, in its words
        (github.com/osbuild/osbuild-composer, issue 1447)."""
        self._late.done(effect)
        message = "Operation execution has been preempted by a more recent operation."
        self._operations.fail(effect.operation, "OperationPreempted", message)

    def _begin_access(self, call: Call) -> Response:
        snapshot = self._resources.need(call.id)
        seconds = requested_seconds(call.body)
        if requires_write(call.body):
            raise bad_request("A snapshot can be read, not written.")
        require_export_allowed(snapshot)
        _require_whole(snapshot)
        percent = self._completion_percent(snapshot)
        if percent < 100.0:
            raise conflict(
                f"Access to snapshot {snapshot.id.name} cannot be granted before its background copy is"
                f" complete: completionPercent is {percent}."
            )
        family = snapshot.properties.get("incrementalSnapshotFamilyId")
        if family is not None:
            self._access.require_family_has_room(snapshot, self._family(call.id.subscription, family))
        if call.late is not None:
            headers = self._later(call, snapshot, Change.OPENS, call.late, seconds=seconds)
            return Response(status_code=202, headers=headers)
        output = self._opened(snapshot, seconds)
        return Response(status_code=202, headers=self._start(call, snapshot, output))

    def _opened(self, snapshot: Resource, seconds: int) -> Wire:
        return self._access.open(
            snapshot,
            snapshot.sim["version"],
            size=snapshot.properties["diskSizeBytes"],
            group=snapshot.sim["group"],
            seconds=seconds,
        )

    def _end_access(self, call: Call) -> Response:
        snapshot = self._resources.need(call.id)
        if call.late is not None:
            headers = self._later(call, snapshot, Change.CLOSES, call.late)
            return Response(status_code=202, headers=headers)
        self._access.close(snapshot)
        return Response(status_code=202, headers=self._start(call, snapshot))

    def _family(self, subscription: str, family: str) -> Iterator[Resource]:
        return (
            snapshot
            for snapshot in self._resources.all(SNAPSHOT, subscription)
            if snapshot.properties.get("incrementalSnapshotFamilyId") == family
        )

    def _start(
        self, call: Call, snapshot: Resource, output: Wire | None = None, *, name: str | None = None
    ) -> dict[str, str]:
        return self._operations.start(
            call.id.subscription, snapshot.location, api_version=call.api_version, output=output, name=name
        )

    def _later(
        self, call: Call, snapshot: Resource, change: Change, late: Lateness, **details: object
    ) -> dict[str, str]:
        """Headers of an accepted request that takes effect later."""
        operation = str(uuid.uuid4())
        self._late.defer(operation, change, snapshot.id, late, **details)
        return self._start(call, snapshot, name=operation)

    def _awaited(self, call: Call, *changes: Change) -> Effect | None:
        return next((effect for effect in self._late.of(call.id) if effect.change in changes), None)

    def _headers_of(self, call: Call, effect: Effect, snapshot: Resource) -> dict[str, str]:
        return self._operations.headers_of(
            effect.operation, call.id.subscription, snapshot.location, api_version=call.api_version
        )


def family_of(disk_unique_id: str) -> str:
    """The family id of all incremental snapshots of one disk, as opaque to clients as Azure's."""
    return str(uuid.uuid5(uuid.UUID(disk_unique_id), "incremental snapshots"))


def _require_whole(snapshot: Resource) -> None:
    state = snapshot.properties["provisioningState"]
    if state != "Succeeded":
        raise conflict(f"Access to snapshot {snapshot.id.name} cannot be granted: it is in state {state}.")


def _region(location: str) -> str:
    """Azure takes "West Europe" and "westeurope" for the same region."""
    return location.replace(" ", "").lower()
