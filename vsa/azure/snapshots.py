"""Snapshots of one disk, by the API that its kind has: create, find again, release.

Both drivers keep three promises. What identifies a snapshot as ours (name or metadata, owner tags) is in
the request that creates it, so nothing of ours is ever nameless. Creating again for the same run adopts
what is there. Deleting what is gone is success.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Protocol

from azure.core.exceptions import ResourceNotFoundError
from azure.mgmt.compute import models
from azure.storage.blob import BlobClient

from vsa.azure.accounts import StorageAccounts
from vsa.azure.blob_address import BlobAddress
from vsa.azure.connection import AzureConnection
from vsa.azure.disks import VHD_FOOTER
from vsa.azure.errors import azure_errors
from vsa.azure.listing import listed
from vsa.azure.marks import ASKED, FoundSnapshot, Owner, in_metadata, ours_among, snapshot_name
from vsa.azure.operations import Accepted, finished
from vsa.azure.resource_id import ResourceId
from vsa.azure.wire import text
from vsa.errors import (
    AccessDenied,
    AzureNotFound,
    AzureRefused,
    RunStopped,
    SnapshotAwaited,
    TryAgainLater,
    VsaError,
)
from vsa.model import DiskKind, SnapshotName, SnapshotRef, SourceDisk
from vsa.stop import Stop, again

_log = logging.getLogger(__name__)

# A premium page blob takes one snapshot in ten minutes (learn.microsoft.com, "Using blob service
# operations with Azure Premium Storage"); the answer carries no Retry-After, so we look every half minute.
RATE_CODES = frozenset({"SnapshotOperationRateExceeded", "SnaphotOperationRateExceeded"})
RATE_WAIT_SECONDS = 30.0
RATE_WAITS = 24
COUNT_CODE = "SnapshotCountExceeded"

# Azure's codes for these are not all documented, so whatever it refuses may be one of them
# (learn.microsoft.com, "Create an incremental snapshot for managed disks"; REST "Snapshot Blob").
MANAGED_LIMITS = (
    "Azure keeps 500 incremental snapshots of a disk and makes seven of them in five minutes. If there are "
    "as many, delete those that nobody needs, or wait: of ours there is the base alone"
)
PREMIUM_LIMITS = (
    "Azure keeps 100 snapshots of a premium page blob: delete those that nobody needs, of ours there is the "
    "base alone"
)
DISK_GONE = "the disk was deleted or moved after this job had looked at it: the next job takes what there is"

# How long after it was asked for a blob snapshot is made at most, and how far Azure's clocks may differ. A
# snapshot of ours that took longer is no longer known by its marks, which a person is told; the longer this
# is, the sooner a user's snapshot of a VHD that was put back from ours is taken for ours, and deleted.
LONGEST_MAKING = dt.timedelta(minutes=10)
CLOCKS_DIFFER = dt.timedelta(minutes=1)

# Premium SSD v2 and Ultra copy in the background, a large disk for hours; a grant before 100 % is refused.
COMPLETION_SECONDS = 5.0
LONGEST_COMPLETION_SECONDS = 24 * 3600.0


@contextmanager
def _advising(limits: str, is_gone: Callable[[], bool]) -> Iterator[None]:
    """Add to a refusal what limits there are, or that the disk is gone where it is; not to one that says by
    itself what is wrong."""
    try:
        yield
    except AzureNotFound as error:
        if not is_gone():
            raise
        raise AzureNotFound(f"{error}; {DISK_GONE}", code=error.code) from error
    except AccessDenied:
        raise
    except AzureRefused as error:
        raise AzureRefused(f"{error}; {limits}", code=error.code) from error


class Snapshots(Protocol):
    """What the engine asks of either driver."""

    def create(self, disk: SourceDisk, owner: Owner, stop: Stop, guard: Callable[[], None]) -> SnapshotRef:
        """Snapshot the disk for this run, or adopt the one this run already made. SnapshotAwaited when Azure
        has accepted to make it and does not come to show it.

        `guard` is called before every request for one, repeated ones too: an attempt may be hours after the
        first, when somebody has ended the run and cleaned up after it.
        """

    def ours_of(
        self, disks: Sequence[SourceDisk], media: str, *, stop: Stop, since: float | None = None
    ) -> list[tuple[SourceDisk, FoundSnapshot]]:
        """Those of these disks, of one resource group, that carry this media's marks, and those that lost
        theirs: by name alone they prove nothing. In as few requests as Azure allows. `since`: what was there
        at that moment of `time.monotonic`, or later, is enough."""

    def left_by(
        self, disk: SourceDisk, media: str, runs: Collection[str], *, stop: Stop, since: float
    ) -> list[FoundSnapshot]:
        """Those of the disk that were there at a moment or later, and those that these runs may have made
        since; each as it is now."""

    def exists(self, ref: SnapshotRef) -> bool:
        """Whether the snapshot is still there to be read, and still the one that was meant."""

    def is_shown(self, name: SnapshotName) -> bool:
        """Whether Azure shows anything by this name, in whatever state."""

    def delete(self, name: SnapshotName, stop: Stop) -> None:
        """Delete it; one that is gone already is deleted. RunStopped when a stop is asked for: Azure goes on
        with what it has begun."""


class ManagedSnapshots:
    """Incremental snapshots of managed disks, in the resource group of their disk.

    Source: https://learn.microsoft.com/rest/api/compute/snapshots/create-or-update
    """

    def __init__(self, connection: AzureConnection) -> None:
        self._connection = connection
        self._api = connection.compute.snapshots

    def create(self, disk: SourceDisk, owner: Owner, stop: Stop, guard: Callable[[], None]) -> SnapshotRef:
        name, accepted = snapshot_name(owner.run, disk.key), Accepted()
        # A lost answer is not a lost snapshot: the name is the run's own, so what has it is adopted.
        with _advising(MANAGED_LIMITS, lambda: self._is_gone(disk, stop)):
            try:
                snapshot = again(
                    lambda: self._get_or_put(disk, name, owner, stop, guard, accepted), stop=stop
                )
                _require_source(snapshot, disk)
                whole = self._complete(disk, snapshot, stop)
            except TryAgainLater as error:
                if not accepted.token:
                    raise
                raise SnapshotAwaited(
                    str(error), retry_after=error.retry_after, is_busy=error.is_busy
                ) from error
        return self._ref(disk, whole)

    def _get_or_put(
        self,
        disk: SourceDisk,
        name: str,
        owner: Owner,
        stop: Stop,
        guard: Callable[[], None],
        accepted: Accepted,
    ) -> Any:
        action = f"snapshot disk {disk.name} as {name}"
        put = partial(
            self._api.begin_create_or_update, disk.resource_group, name, _snapshot_body(disk, owner)
        )
        with azure_errors(action):
            try:
                return self._api.get(disk.resource_group, name)
            except ResourceNotFoundError:
                # What is being made need not be shown yet: it is not asked for twice.
                if accepted.token:
                    return accepted.told(put(continuation_token=accepted.token), stop=stop, action=action)
                guard()
                poller = put()
                accepted.token = poller.continuation_token()
                return accepted.told(poller, stop=stop, action=action)

    def _complete(self, disk: SourceDisk, snapshot: Any, stop: Stop) -> Any:
        """The snapshot once it is whole: provisioned, and of Premium SSD v2 and Ultra disks copied."""
        name, began = snapshot.name, time.monotonic()
        while not _is_whole(snapshot):
            if time.monotonic() - began > LONGEST_COMPLETION_SECONDS:
                raise TryAgainLater(f"snapshot {name} is not whole after {LONGEST_COMPLETION_SECONDS:.0f} s")
            _log.info(
                "snapshot %s: %s, %.0f %% copied",
                name,
                snapshot.provisioning_state,
                snapshot.completion_percent or 0,
            )
            stop.wait(COMPLETION_SECONDS)
            snapshot = again(partial(self._get_made, disk.resource_group, name), stop=stop)
        return snapshot

    def _get_made(self, resource_group: str, name: str) -> Any:
        """One that Azure has shown already: a copy of its that lags behind says nothing of it."""
        try:
            return self._get(resource_group, name)
        except AzureNotFound as error:
            raise TryAgainLater(f"{error}; Azure had shown it while it was made") from error

    def _is_gone(self, disk: SourceDisk, stop: Stop) -> bool:
        """Whether Azure shows the disk no more; False if it does not say."""
        parts = ResourceId.parse(disk.source)

        def look() -> None:
            with azure_errors(f"read managed disk {disk.name}"):
                self._connection.compute.disks.get(parts.group, parts.name)

        try:
            again(look, stop=stop)
        except AzureNotFound:
            return True
        except RunStopped:
            raise
        except VsaError as error:
            _log.warning("whether disk %s is still there cannot be told: %s", disk.name, error)
        return False

    def _get(self, resource_group: str, name: str) -> Any:
        with azure_errors(f"read snapshot {name}"):
            return self._api.get(resource_group, name)

    @staticmethod
    def _ref(disk: SourceDisk, snapshot: Any) -> SnapshotRef:
        return SnapshotRef(
            disk_key=disk.key,
            kind=disk.kind,
            id=snapshot.id,
            family=snapshot.incremental_snapshot_family_id,
            source_unique_id=snapshot.creation_data.source_unique_id or disk.unique_id,
            taken_at=snapshot.time_created,
            size=snapshot.disk_size_bytes,
        )

    def ours_of(
        self, disks: Sequence[SourceDisk], media: str, *, stop: Stop, since: float | None = None
    ) -> list[tuple[SourceDisk, FoundSnapshot]]:
        listed = self._listed_of_group(disks[0].resource_group, stop, since)
        by_key = {disk.key: disk for disk in disks}
        return ours_among((item for key in by_key for item in listed.get(key, ())), by_key, media).found

    def left_by(
        self, disk: SourceDisk, media: str, runs: Collection[str], *, stop: Stop, since: float
    ) -> list[FoundSnapshot]:
        listed = self._listed_of_group(disk.resource_group, stop, since).get(disk.key, ())
        seen = {item.name.lower(): item for item in listed}
        names = seen.keys() | {snapshot_name(run, disk.key) for run in runs}
        there = (self._as_it_is(disk.resource_group, name, seen.get(name)) for name in sorted(names))
        found = ours_among((item for item in there if item), {disk.key: disk}, media).found
        return [item for of, item in found if of.key == disk.key]

    def _listed_of_group(self, group: str, stop: Stop, since: float | None) -> dict[str, list[Any]]:
        try:
            return self._connection.snapshots_of_group(group).get(stop=stop, since=since)
        except AzureNotFound:
            return {}

    def _as_it_is(self, resource_group: str, name: str, seen: Any | None) -> Any | None:
        """The snapshot as it is now, None if it is not there; as a list has `seen` it where Azure refuses to
        show it, for the others must not stay because of it."""
        try:
            return self._get(resource_group, name)
        except AzureNotFound:
            return None
        except AzureRefused:
            if seen is None:
                raise
            return seen

    def listed(self, stop: Stop) -> list[Any]:
        """Every snapshot of the subscription that this identity may see, as Azure describes it."""
        return list(listed(self._api.list(), action="list the snapshots of the subscription", stop=stop))

    def exists(self, ref: SnapshotRef) -> bool:
        parts = ResourceId.parse(ref.id)
        try:
            snapshot = self._get(parts.group, parts.name)
        except AzureNotFound:
            return False
        # What somebody else is deleting grants no access any more, however long that takes.
        is_going = text(snapshot.provisioning_state) == "Deleting"
        return bool(snapshot.incremental_snapshot_family_id == ref.family and not is_going)

    def is_shown(self, name: SnapshotName) -> bool:
        parts = ResourceId.parse(name.id)
        return self._as_it_is(parts.group, parts.name, None) is not None

    def delete(self, name: SnapshotName, stop: Stop) -> None:
        parts = ResourceId.parse(name.id)
        action = f"delete snapshot {parts.name}"
        try:
            with azure_errors(action):
                finished(self._api.begin_delete(parts.group, parts.name), stop=stop, action=action)
        except AzureNotFound:
            return


def _snapshot_body(disk: SourceDisk, owner: Owner) -> models.Snapshot:
    """What to ask for; the snapshot may be exported no more freely than its disk."""
    return models.Snapshot(
        location=disk.region,
        tags=owner.tags(),
        properties=models.SnapshotProperties(
            incremental=True,
            creation_data=models.CreationData(
                create_option=models.DiskCreateOption.COPY, source_resource_id=disk.source
            ),
            network_access_policy=disk.network_access or None,
            disk_access_id=disk.disk_access,
        ),
    )


def _require_source(snapshot: Any, disk: SourceDisk) -> None:
    """Refuse a snapshot by our name that is of something else."""
    source = snapshot.creation_data.source_resource_id or disk.source
    unique_id = snapshot.creation_data.source_unique_id or disk.unique_id
    if source.lower() != disk.source.lower() or unique_id != disk.unique_id:
        raise AzureRefused(
            f"snapshot {snapshot.name} is of {source} ({unique_id}), expected {disk.source} "
            f"({disk.unique_id}); was the disk replaced after it was identified?",
            code="SnapshotOfAnotherDisk",
        )


def _is_whole(snapshot: Any) -> bool:
    """Whether Azure has finished making it. Raises AzureRefused when Azure has given up."""
    state = text(snapshot.provisioning_state)
    if state in ("Failed", "Canceled"):
        raise AzureRefused(f"snapshot {snapshot.name}: Azure ended its creation as {state}", code=state)
    copied = snapshot.completion_percent is None or snapshot.completion_percent >= 100
    return state == "Succeeded" and copied


class BlobSnapshots:
    """Snapshots of unmanaged VHDs. They have no name of ours, only a time: metadata marks them.

    Source: https://learn.microsoft.com/rest/api/storageservices/snapshot-blob
    """

    def __init__(self, connection: AzureConnection) -> None:
        self._connection = connection
        self._accounts = StorageAccounts(connection)

    def create(self, disk: SourceDisk, owner: Owner, stop: Stop, guard: Callable[[], None]) -> SnapshotRef:
        for attempt in range(RATE_WAITS + 1):
            try:
                return again(lambda: self._create_or_adopt(disk, owner, guard), stop=stop)
            except AzureRefused as error:
                if error.code == COUNT_CODE:
                    raise AzureRefused(f"{error}; {PREMIUM_LIMITS}", code=error.code) from error
                if error.code not in RATE_CODES or attempt == RATE_WAITS:
                    raise
                _log.warning(
                    "disk %s: Azure takes one snapshot of a premium VHD in ten minutes; again in %.0f s",
                    disk.name,
                    RATE_WAIT_SECONDS,
                )
                stop.wait(RATE_WAIT_SECONDS)
        raise TryAgainLater(f"snapshot VHD {disk.source}: no snapshot was allowed in time")

    def _create_or_adopt(self, disk: SourceDisk, owner: Owner, guard: Callable[[], None]) -> SnapshotRef:
        found, now = self._look(disk, owner.media)
        mine = (item for item in found if item.run == owner.run and not item.inherited)
        adopted = next((item.name.moment for item in mine), None)
        if not now:
            raise TryAgainLater(
                f"list snapshots of VHD {disk.source}: the answer has no Date to mark one with"
            )
        key = self._accounts.key(BlobAddress.parse(disk.source))
        if not adopted:
            guard()
        with azure_errors(f"snapshot VHD {disk.source}"):
            made = adopted or self._connection.blob(disk.source, key).create_snapshot(
                metadata=owner.metadata() | {in_metadata(ASKED): now}
            ).get("snapshot")
            moment = str(made)
            snapshot = self._connection.blob(f"{disk.source}?snapshot={moment}", key).get_blob_properties()
        return SnapshotRef(
            disk_key=disk.key,
            kind=disk.kind,
            id=disk.source,
            moment=moment,
            source_unique_id=disk.unique_id,
            taken_at=_moment(moment),
            size=snapshot.size - VHD_FOOTER,
        )

    def _ours(self, disk: SourceDisk, media: str) -> list[FoundSnapshot]:
        try:
            return self._look(disk, media)[0]
        except AzureNotFound:
            return []

    def _look(self, disk: SourceDisk, media: str) -> tuple[list[FoundSnapshot], str]:
        """The snapshots with marks of the disk and media, and the time of Azure's answer, as it writes it."""
        with azure_errors(f"list snapshots of VHD {disk.source}"):
            blobs, now = self._listed(BlobAddress.parse(disk.source))
        found = [
            FoundSnapshot(
                name=SnapshotName(kind=disk.kind, id=disk.source, moment=blob.snapshot),
                run=run,
                taken_at=_moment(blob.snapshot),
                size=max(0, blob.size - VHD_FOOTER),
                witness=(blob.metadata or {}).get("vsa_witness", ""),
                inherited=not _is_as_asked(blob),
            )
            for blob in blobs
            if blob.snapshot and (run := _run_of(blob, disk, media))
        ]
        return found, now

    def ours_of(
        self, disks: Sequence[SourceDisk], media: str, *, stop: Stop, since: float | None = None
    ) -> list[tuple[SourceDisk, FoundSnapshot]]:
        return [(disk, found) for disk in disks for found in self._ours(disk, media)]

    def left_by(
        self, disk: SourceDisk, media: str, runs: Collection[str], *, stop: Stop, since: float
    ) -> list[FoundSnapshot]:
        return self._ours(disk, media)

    def _listed(self, address: BlobAddress) -> tuple[list[Any], str]:
        """The VHD and its snapshots, and the answer's Date; a name is a prefix of other names, too."""
        dates = [""]

        def remember(response: Any) -> None:
            dates.append(response.http_response.headers.get("Date", ""))

        container = self._connection.container(address.container_url, self._accounts.key(address))
        blobs = container.list_blobs(
            name_starts_with=address.name, include=["snapshots", "metadata"], raw_response_hook=remember
        )
        return [blob for blob in blobs if blob.name == address.name], dates[-1]

    def exists(self, ref: SnapshotRef) -> bool:
        return self.is_shown(ref)

    def is_shown(self, name: SnapshotName) -> bool:
        try:
            with azure_errors(f"read snapshot {name.moment} of VHD {name.id}"):
                self._snapshot(name).get_blob_properties()
        except AzureNotFound:
            return False
        return True

    def delete(self, name: SnapshotName, stop: Stop) -> None:
        try:
            with azure_errors(f"delete snapshot {name.moment} of VHD {name.id}"):
                self._snapshot(name).delete_blob()
        except AzureNotFound:
            return

    def _snapshot(self, name: SnapshotName) -> BlobClient:
        key = self._accounts.key(BlobAddress.parse(name.id))
        return self._connection.blob(f"{name.id}?snapshot={name.moment}", key)


def _run_of(blob: Any, disk: SourceDisk, media: str) -> str:
    """The run whose marks a blob or snapshot carries; empty if it carries none of this disk and media."""
    marks = blob.metadata or {}
    if marks.get("vsa_media") != media or marks.get("vsa_disk") != disk.key:
        return ""
    return str(marks.get("vsa_run", ""))


def _is_as_asked(blob: Any) -> bool:
    """Whether a blob snapshot was made when its marks say that it was asked for. One without metadata of its
    own takes over the VHD's (REST "Snapshot Blob"), and a copy brings its source's: these marks are older."""
    try:
        asked = parsedate_to_datetime((blob.metadata or {}).get(in_metadata(ASKED), ""))
        return -CLOCKS_DIFFER <= _moment(blob.snapshot) - asked <= LONGEST_MAKING
    except (TypeError, ValueError):
        return False


def _moment(snapshot: str) -> dt.datetime:
    """The time in a blob snapshot's name, which has seven decimals where Python reads six."""
    return dt.datetime.strptime(snapshot[:26] + "+0000", "%Y-%m-%dT%H:%M:%S.%f%z")


def snapshots_of(connection: AzureConnection, kind: DiskKind) -> Snapshots:
    """The driver for a kind of disk. Azure Classic's disks get theirs here."""
    return ManagedSnapshots(connection) if kind is DiskKind.MANAGED else BlobSnapshots(connection)
