"""Snapshots of one disk, by the API that its kind has: create, find again, release.

Both drivers keep three promises. What identifies a snapshot as ours (name or metadata, owner tags) is in
the request that creates it, so nothing of ours is ever nameless. Creating again for the same run adopts
what is there. Deleting what is gone is success.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from azure.core.exceptions import ResourceNotFoundError
from azure.mgmt.compute import models

from vsa.azure.accounts import StorageAccounts
from vsa.azure.connection import AzureConnection
from vsa.azure.errors import azure_errors
from vsa.azure.resource_id import ResourceId
from vsa.errors import AzureNotFound, AzureRefused, TryAgainLater
from vsa.model import DiskKind, SnapshotRef, SourceDisk
from vsa.secret import Secret
from vsa.stop import Stop, again

_log = logging.getLogger(__name__)

# A premium page blob takes one snapshot in ten minutes (learn.microsoft.com, "Using blob service
# operations with Azure Premium Storage"); the answer carries no Retry-After, so we look every half minute.
RATE_CODES = frozenset({"SnapshotOperationRateExceeded", "SnaphotOperationRateExceeded"})
RATE_WAIT_SECONDS = 30.0
RATE_WAITS = 24

# Premium SSD v2 and Ultra copy in the background; a grant before 100 % is refused.
COMPLETION_SECONDS = 5.0


@dataclass(frozen=True)
class Owner:
    """Whose a snapshot is: written into its tags or metadata in the request that creates it."""

    media: str
    run: str
    job: str
    disk: str

    def tags(self) -> dict[str, str]:
        return {"vsa-media": self.media, "vsa-run": self.run, "vsa-job": self.job, "vsa-disk": self.disk}

    def metadata(self) -> dict[str, str]:
        """The same for blob metadata, whose names must be C# identifiers."""
        return {name.replace("-", "_"): value for name, value in self.tags().items()}


@dataclass(frozen=True)
class FoundSnapshot:
    """A snapshot that carries our marks: `run` is the run that made it."""

    ref: SnapshotRef
    run: str


class Snapshots(Protocol):
    """What the engine asks of either driver."""

    def create(self, disk: SourceDisk, owner: Owner, stop: Stop) -> SnapshotRef:
        """Snapshot the disk for this run, or adopt the one this run already made."""

    def ours(self, disk: SourceDisk, media: str) -> Iterator[FoundSnapshot]:
        """The disk's snapshots that carry this media's marks."""

    def exists(self, ref: SnapshotRef) -> bool:
        """Whether the snapshot is still there, and still the one that was meant."""

    def delete(self, ref: SnapshotRef) -> None:
        """Delete it; one that is gone already is deleted."""


def snapshot_name(run: str, disk_key: str) -> str:
    """The name of a managed disk's snapshot: a function of run and disk, at most 80 characters."""
    return f"vsa-{run}-{disk_key}"


class ManagedSnapshots:
    """Incremental snapshots of managed disks, in the resource group of their disk.

    Source: https://learn.microsoft.com/rest/api/compute/snapshots/create-or-update
    """

    def __init__(self, connection: AzureConnection) -> None:
        self._api = connection.compute.snapshots

    def create(self, disk: SourceDisk, owner: Owner, stop: Stop) -> SnapshotRef:
        name = snapshot_name(owner.run, disk.key)
        body = models.Snapshot(
            location=disk.region,
            tags=owner.tags(),
            properties=models.SnapshotProperties(
                incremental=True,
                creation_data=models.CreationData(
                    create_option=models.DiskCreateOption.COPY, source_resource_id=disk.source
                ),
            ),
        )
        # A lost answer is not a lost snapshot: the name is the run's own, so putting it again adopts it.
        snapshot = again(lambda: self._put(disk, name, body), stop=stop)
        return self._ref(disk, self._complete(disk, snapshot, stop))

    def _put(self, disk: SourceDisk, name: str, body: models.Snapshot) -> Any:
        with azure_errors(f"snapshot disk {disk.name} as {name}"):
            try:
                return self._api.get(disk.resource_group, name)
            except ResourceNotFoundError:
                return self._api.begin_create_or_update(disk.resource_group, name, body).result()

    def _complete(self, disk: SourceDisk, snapshot: Any, stop: Stop) -> Any:
        while snapshot.completion_percent is not None and snapshot.completion_percent < 100:
            _log.info("snapshot %s: Azure has copied %.0f %%", snapshot.name, snapshot.completion_percent)
            stop.wait(COMPLETION_SECONDS)
            with azure_errors(f"read snapshot {snapshot.name}"):
                snapshot = self._api.get(disk.resource_group, snapshot.name)
        return snapshot

    @staticmethod
    def _ref(disk: SourceDisk, snapshot: Any) -> SnapshotRef:
        return SnapshotRef(
            disk_key=disk.key,
            kind=disk.kind,
            id=snapshot.id,
            family=snapshot.incremental_snapshot_family_id,
            source_unique_id=snapshot.creation_data.source_unique_id or "",
            taken_at=snapshot.time_created,
            size=snapshot.disk_size_bytes,
        )

    def ours(self, disk: SourceDisk, media: str) -> Iterator[FoundSnapshot]:
        with azure_errors(f"list snapshots of resource group {disk.resource_group}"):
            snapshots = list(self._api.list_by_resource_group(disk.resource_group))
        for snapshot in snapshots:
            tags = snapshot.tags or {}
            if tags.get("vsa-media") == media and tags.get("vsa-disk") == disk.key:
                yield FoundSnapshot(ref=self._ref(disk, snapshot), run=tags.get("vsa-run", ""))

    def exists(self, ref: SnapshotRef) -> bool:
        parts = ResourceId.parse(ref.id)
        try:
            with azure_errors(f"read snapshot {parts.name}"):
                snapshot = self._api.get(parts.group, parts.name)
        except AzureNotFound:
            return False
        return bool(snapshot.incremental_snapshot_family_id == ref.family)

    def delete(self, ref: SnapshotRef) -> None:
        parts = ResourceId.parse(ref.id)
        try:
            with azure_errors(f"delete snapshot {parts.name}"):
                self._api.begin_delete(parts.group, parts.name).result()
        except AzureNotFound:
            return


class BlobSnapshots:
    """Snapshots of unmanaged VHDs. They have no name of ours, only a time: metadata marks them.

    Source: https://learn.microsoft.com/rest/api/storageservices/snapshot-blob
    """

    def __init__(self, connection: AzureConnection) -> None:
        self._connection = connection
        self._accounts = StorageAccounts(connection)

    def create(self, disk: SourceDisk, owner: Owner, stop: Stop) -> SnapshotRef:
        for attempt in range(RATE_WAITS + 1):
            try:
                return again(lambda: self._create_or_adopt(disk, owner), stop=stop)
            except AzureRefused as error:
                if error.code not in RATE_CODES or attempt == RATE_WAITS:
                    raise
                _log.warning(
                    "disk %s: Azure takes one snapshot of a premium VHD in ten minutes; again in %.0f s",
                    disk.name,
                    RATE_WAIT_SECONDS,
                )
                stop.wait(RATE_WAIT_SECONDS)
        raise TryAgainLater(f"snapshot VHD {disk.source}: no snapshot was allowed in time")

    def _create_or_adopt(self, disk: SourceDisk, owner: Owner) -> SnapshotRef:
        for found in self.ours(disk, owner.media):
            if found.run == owner.run:
                return found.ref
        key = self._key(disk)
        with azure_errors(f"snapshot VHD {disk.source}"):
            blob = self._connection.blob(disk.source, key)
            created = blob.create_snapshot(metadata=owner.metadata())
            properties = self._connection.blob(
                f"{disk.source}?snapshot={created['snapshot']}", key
            ).get_blob_properties()
        return self._ref(disk, str(created["snapshot"]), properties)

    def ours(self, disk: SourceDisk, media: str) -> Iterator[FoundSnapshot]:
        with azure_errors(f"list snapshots of VHD {disk.source}"):
            for blob in self._listed(disk, ["snapshots", "metadata"]):
                marks = blob.metadata or {}
                if blob.snapshot and marks.get("vsa_media") == media and marks.get("vsa_disk") == disk.key:
                    ref = self._ref(disk, blob.snapshot, blob)
                    yield FoundSnapshot(ref=ref, run=marks.get("vsa_run", ""))

    def _listed(self, disk: SourceDisk, include: list[str]) -> Iterator[Any]:
        name = str(self._connection.blob(disk.source).blob_name)
        container = self._connection.container(disk.source[: -len(name) - 1], self._key(disk))
        for blob in container.list_blobs(name_starts_with=name, include=include):
            if blob.name == name:
                yield blob

    @staticmethod
    def _ref(disk: SourceDisk, moment: str, properties: Any) -> SnapshotRef:
        return SnapshotRef(
            disk_key=disk.key,
            kind=disk.kind,
            id=disk.source,
            moment=moment,
            source_unique_id=disk.unique_id,
            taken_at=_moment(moment),
            size=properties.size - 512,
        )

    def exists(self, ref: SnapshotRef) -> bool:
        url = f"{ref.id}?snapshot={ref.moment}"
        try:
            with azure_errors(f"read snapshot {ref.moment} of VHD {ref.id}"):
                self._connection.blob(url, self._key_of_url(ref.id)).get_blob_properties()
        except AzureNotFound:
            return False
        return True

    def delete(self, ref: SnapshotRef) -> None:
        url = f"{ref.id}?snapshot={ref.moment}"
        try:
            with azure_errors(f"delete snapshot {ref.moment} of VHD {ref.id}"):
                self._connection.blob(url, self._key_of_url(ref.id)).delete_blob()
        except AzureNotFound:
            return

    def _key(self, disk: SourceDisk) -> Secret:
        return self._accounts.key(str(disk.account), str(disk.account_resource_group))

    def _key_of_url(self, blob_url: str) -> Secret:
        account = self._accounts.by_name(str(self._connection.blob(blob_url).account_name))
        return self._accounts.key(account.name, account.resource_group)


def _moment(snapshot: str) -> dt.datetime:
    """The time in a blob snapshot's name, which has seven decimals where Python reads six."""
    return dt.datetime.strptime(snapshot[:26] + "+0000", "%Y-%m-%dT%H:%M:%S.%f%z")


def snapshots_of(connection: AzureConnection, kind: DiskKind) -> Snapshots:
    """The driver for a kind of disk. Azure Classic's disks get theirs here."""
    return ManagedSnapshots(connection) if kind is DiskKind.MANAGED else BlobSnapshots(connection)
