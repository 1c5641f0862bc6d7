"""The staging blob: a copy of a premium VHD's snapshot that can be read at full speed.

Azure limits direct reads of snapshots in premium accounts and says to copy them to another page blob of
the account (learn.microsoft.com, "Using blob service operations with Azure Premium Storage"). The copy has
no change history: diffs are computed on the source's snapshots, never on a staging blob.
"""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from azure.core.exceptions import ResourceExistsError

from vsa.azure.accounts import StorageAccounts, container_url
from vsa.azure.connection import AzureConnection
from vsa.azure.errors import azure_errors
from vsa.azure.snapshots import Owner
from vsa.errors import AzureNotFound, AzureRefused
from vsa.model import SnapshotRef, SourceDisk
from vsa.secret import Secret
from vsa.stop import Stop, again

_log = logging.getLogger(__name__)

CONTAINER = "vsa-staging"


def staging_url(disk: SourceDisk, run: str) -> str:
    """Where the staging blob of a run and disk lives: in the disk's own account, by a name of ours."""
    return f"{container_url(disk.source, CONTAINER)}/vsa-{run}-{disk.key}.vhd"


class StagingBlobs:
    """Makes and removes staging blobs."""

    def __init__(self, connection: AzureConnection) -> None:
        self._connection = connection
        self._accounts = StorageAccounts(connection)

    def copy(self, disk: SourceDisk, snapshot: SnapshotRef, owner: Owner, stop: Stop) -> str:
        """Copy the snapshot to the run's staging blob and return its URL when the copy is complete."""
        url = staging_url(disk, owner.run)
        key = self._key(url)
        again(lambda: self._start(url, snapshot, owner, key), stop=stop)
        while (status := again(lambda: self._status(url, key), stop=stop)) == "pending":
            stop.wait(self._connection.polling_seconds)
        if status != "success":
            raise AzureRefused(
                f"copy of {disk.source} to its staging blob ended as {status!r}, expected 'success'",
                code="CopyFailed",
            )
        return url

    def _start(self, url: str, snapshot: SnapshotRef, owner: Owner, key: Secret) -> None:
        with azure_errors(f"start the copy to staging blob {url}"):
            container = self._connection.container(url.rsplit("/", 1)[0], key)
            try:
                container.create_container()
            except ResourceExistsError:
                _log.debug("staging container of %s is there already", urlsplit(url).netloc)
            blob = self._connection.blob(url, key)
            source = f"{snapshot.id}?snapshot={snapshot.moment}"
            if not blob.exists():
                blob.start_copy_from_url(source, metadata=owner.metadata())

    def _status(self, url: str, key: Secret) -> str:
        with azure_errors(f"read the state of staging blob {url}"):
            copy = self._connection.blob(url, key).get_blob_properties().copy
        return str(copy.status or "")

    def delete(self, url: str) -> None:
        """Delete a staging blob, ending its copy if that still runs; one that is gone is deleted."""
        key = self._key(url)
        try:
            with azure_errors(f"delete staging blob {url}"):
                blob = self._connection.blob(url, key)
                properties = blob.get_blob_properties()
                if properties.copy.status == "pending" and properties.copy.id:
                    blob.abort_copy(properties.copy.id)
                blob.delete_blob()
        except AzureNotFound:
            return

    def _key(self, url: str) -> Secret:
        account = self._accounts.by_name(str(self._connection.blob(url).account_name))
        return self._accounts.key(account.name, account.resource_group)
