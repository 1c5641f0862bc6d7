"""The staging blob: a copy of a premium VHD's snapshot that can be read at full speed.

Azure limits direct reads of snapshots in premium accounts and says to copy them to another page blob of
the account (learn.microsoft.com, "Using blob service operations with Azure Premium Storage"). The copy has
no change history: diffs are computed on the source's snapshots, never on a staging blob.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.storage.blob import BlobClient, ContainerClient

from vsa.azure.accounts import StorageAccounts
from vsa.azure.blob_address import BlobAddress
from vsa.azure.budget import cleaning
from vsa.azure.connection import AzureConnection
from vsa.azure.errors import azure_errors, code_of
from vsa.azure.marks import DISK, MEDIA, RUN, Owner, are_missing, in_metadata, run_in
from vsa.errors import AzureNotFound, TryAgainLater, VsaError
from vsa.fault_points import FaultPoint, reached
from vsa.model import SnapshotRef, SourceDisk
from vsa.stop import Stop, again, waiting

CONTAINER = "vsa-staging"


# Azure copies within an account at its own pace; a copy that does not end by then is given up.
LONGEST_COPY_SECONDS = 24 * 3600.0


def staging_url(disk: SourceDisk, run: str) -> str:
    """Where the staging blob of a run and disk lives: in the disk's own account, by a name of ours."""
    return BlobAddress.parse(disk.source).beside(CONTAINER, f"vsa-{run}-{disk.key}.vhd").url


@dataclass(frozen=True)
class FoundStaging:
    """A staging blob by our name: `run` made it. `size` in bytes. `marked`: its marks say the same; if not,
    they are missing, and the name alone proves nothing."""

    url: str
    run: str
    made_at: dt.datetime | None
    size: int
    marked: bool = True


def found_staging(blob: Any, container_url: str, disk_key: str, media: str) -> FoundStaging | None:
    """What a listed blob is to this disk and media; None if it is nothing of ours."""
    name, suffix, rest = blob.name.rpartition(".vhd")
    run, marks = run_in(name, disk_key), blob.metadata or {}
    expected = {in_metadata(MEDIA): media, in_metadata(RUN): run, in_metadata(DISK): disk_key}
    marked = all(marks.get(mark) == value for mark, value in expected.items())
    if rest or not suffix or not run or not (marked or are_missing(marks, expected)):
        return None
    return FoundStaging(f"{container_url}/{blob.name}", run, blob.creation_time, blob.size or 0, marked)


class StagingBlobs:
    """Makes, finds and removes staging blobs."""

    def __init__(self, connection: AzureConnection) -> None:
        self._connection = connection
        self._accounts = StorageAccounts(connection)

    def copy(
        self,
        disk: SourceDisk,
        snapshot: SnapshotRef,
        owner: Owner,
        stop: Stop,
        guard: Callable[[], None],
    ) -> str:
        """Copy the snapshot to the run's staging blob and return its URL when the copy is complete.

        `guard` is called before every request for a copy, repeated ones too; what it raises is raised.
        """
        url = staging_url(disk, owner.run)
        began = time.monotonic()
        again(lambda: self._start(url, snapshot, owner, guard), stop=stop)
        reached(FaultPoint.COPY_STARTED)
        while (status := again(lambda: self._status(url), stop=stop)) == "pending":
            if time.monotonic() - began > LONGEST_COPY_SECONDS:
                raise TryAgainLater(f"staging blob {url} is not copied after {LONGEST_COPY_SECONDS:.0f} s")
            stop.wait(self._connection.polling_seconds)
        if status != "success":
            # A failed copy stays failed: the next attempt must find nothing to adopt.
            with cleaning(), waiting(stop.wait):
                left = self._delete_or_say(url)
            raise TryAgainLater(
                f"copy of {disk.source} to its staging blob ended as {status!r}, expected 'success'{left}"
            )
        return url

    def _delete_or_say(self, url: str) -> str:
        """Delete it; what forbids that hides nothing, but is returned, to be said beside it."""
        try:
            self.delete(url)
        except VsaError as error:
            return f"; and it cannot be deleted: {error}"
        return ""

    def _start(self, url: str, snapshot: SnapshotRef, owner: Owner, guard: Callable[[], None]) -> None:
        address = BlobAddress.parse(url)
        key = self._accounts.key(address)
        with azure_errors(f"start the copy to staging blob {url}"):
            _create_container(self._connection.container(address.container_url, key))
            blob = self._connection.blob(url, key)
            if not blob.exists():
                guard()
                source = f"{snapshot.id}?snapshot={snapshot.moment}"
                blob.start_copy_from_url(source, metadata=owner.metadata())

    def _status(self, url: str) -> str:
        with azure_errors(f"read the state of staging blob {url}"):
            properties = self._blob(url).get_blob_properties()
        return str(properties.copy.status or "")

    def of_disk(self, disk: SourceDisk, media: str) -> list[FoundStaging]:
        """The staging blobs of this disk by our name that are still there, marked or not."""
        address = BlobAddress.parse(disk.source).beside(CONTAINER, "")
        try:
            with azure_errors(f"list staging blobs in {address.container_url}"):
                container = self._connection.container(address.container_url, self._accounts.key(address))
                blobs = list(container.list_blobs(name_starts_with="vsa-", include=["metadata"]))
        except AzureNotFound:
            return []
        found = (found_staging(blob, address.container_url, disk.key, media) for blob in blobs)
        return [item for item in found if item]

    def delete(self, url: str) -> None:
        """Delete a staging blob, ending its copy if that still runs; one that is gone is deleted."""
        try:
            with azure_errors(f"delete staging blob {url}"):
                blob = self._blob(url)
                properties = blob.get_blob_properties()
                if properties.copy.status == "pending" and properties.copy.id:
                    _abort_copy(blob, properties.copy.id)
                blob.delete_blob()
        except AzureNotFound:
            return

    def is_shown(self, url: str) -> bool:
        """Whether a staging blob is there."""
        with azure_errors(f"look for staging blob {url}"):
            return bool(self._blob(url).exists())

    def _blob(self, url: str) -> BlobClient:
        return self._connection.blob(url, self._accounts.key(BlobAddress.parse(url)))


def _abort_copy(blob: BlobClient, copy_id: str) -> None:
    """End a copy, unless it has ended by itself: a blob with a copy under way cannot be deleted."""
    try:
        blob.abort_copy(copy_id)
    except HttpResponseError as error:
        if code_of(error) != "NoPendingCopyOperation":
            raise


def _create_container(container: ContainerClient) -> None:
    try:
        container.create_container()
    except ResourceExistsError as error:
        # The SDK calls every conflict "exists"; a container that is being deleted is one, too.
        if code_of(error) == "ContainerBeingDeleted":
            raise TryAgainLater(f"container {container.container_name} is being deleted") from error
        if code_of(error) != "ContainerAlreadyExists":
            raise
