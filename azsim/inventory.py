"""Everything that exists in the simulated subscription, for people and for proofs that nothing leaked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from azsim.arm_protocol import DISK, SNAPSHOT, STORAGE_ACCOUNT, VIRTUAL_MACHINE
from azsim.blob_model import Blob
from azsim.resources import Resource
from azsim.simulation import Simulation
from azsim.virtual_machines import disk_entries

Row = dict[str, Any]


def inventory(simulation: Simulation) -> dict[str, list[Row]]:
    """All resources as flat rows; soft-deleted blobs are listed, marked so."""

    def rows(resource_type: str) -> Iterator[Resource]:
        return simulation.resources.all(resource_type, simulation.subscription)

    with simulation.lock:
        simulation.snapshots.settle()
    return {
        "vms": [_machine(simulation, each) for each in rows(VIRTUAL_MACHINE)],
        "disks": [_disk(simulation, each) for each in rows(DISK)],
        "snapshots": [_snapshot(simulation, each) for each in rows(SNAPSHOT)],
        "storage_accounts": [
            {"name": each.id.name, "id": str(each.id), "sku": each.wire["sku"]["name"]}
            for each in rows(STORAGE_ACCOUNT)
        ],
        "blobs": [_blob(Blob.from_document(body)) for _, body in simulation.documents.items("blob")],
    }


def _machine(simulation: Simulation, machine: Resource) -> Row:
    return {
        "name": machine.id.name,
        "id": str(machine.id),
        "location": machine.location,
        "power": machine.sim["power"],
        "tags": machine.wire.get("tags", {}),
        "disks": [entry["name"] for entry in disk_entries(machine)],
    }


def _disk(simulation: Simulation, disk: Resource) -> Row:
    return {
        "name": disk.id.name,
        "id": str(disk.id),
        "size": simulation.disks.size(disk),
        "sku": disk.wire["sku"]["name"],
        "unique_id": disk.properties["uniqueId"],
        "owner": disk.wire.get("managedBy"),
        "tags": disk.wire.get("tags", {}),
        "grant_open": simulation.access.is_open(disk),
    }


def _snapshot(simulation: Simulation, snapshot: Resource) -> Row:
    creation = snapshot.properties["creationData"]
    return {
        "name": snapshot.id.name,
        "id": str(snapshot.id),
        "source": creation["sourceResourceId"],
        "source_unique_id": creation["sourceUniqueId"],
        "incremental": snapshot.properties["incremental"],
        "family": snapshot.properties.get("incrementalSnapshotFamilyId"),
        "size": snapshot.properties["diskSizeBytes"],
        "state": snapshot.properties["provisioningState"],
        "created_at": snapshot.properties["timeCreated"],
        "tags": snapshot.wire.get("tags", {}),
        "grant_open": simulation.access.is_open(snapshot),
        "read_at": simulation.access.open_paths(snapshot),
    }


def _blob(blob: Blob) -> Row:
    return {
        "account": blob.account,
        "container": blob.container,
        "name": blob.name,
        "snapshot": blob.snapshot,
        "type": blob.type,
        "length": blob.length,
        "metadata": blob.metadata,
        "copy_status": blob.copy.status if blob.copy else None,
        "deleted": blob.deleted_at is not None,
    }
