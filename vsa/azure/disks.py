"""Identification of disks: what each attached disk really is, and whether it can be read at all.

Sources: https://learn.microsoft.com/rest/api/compute/disks/get, .../disks/list and
https://learn.microsoft.com/rest/api/storageservices/get-blob-properties
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Any

from vsa.azure.accounts import StorageAccounts
from vsa.azure.blob_address import BlobAddress
from vsa.azure.connection import AzureConnection
from vsa.azure.errors import azure_errors
from vsa.azure.listing import listed
from vsa.azure.resource_id import ResourceId
from vsa.azure.wire import text
from vsa.errors import AzureNotFound, AzureRefused, BadRequest
from vsa.model import AttachedDisk, DiskKind, Exclusion, SourceDisk
from vsa.redact import public_url
from vsa.stop import Stop

_log = logging.getLogger(__name__)

# A fixed VHD ends with a footer of 512 bytes that is no part of what the guest sees (VHD 1.0 specification).
VHD_FOOTER = 512
# Snapshots of disks with 4096-byte sectors can only be exported as VHDX, which is no flat image.
READABLE_SECTOR = 512


class ListedDisks:
    """Every managed disk of the subscription, listed when the first one is asked for. Thread-safe.

    One request for each disk of a large job would be tens of thousands, which Azure throttles for a quarter
    of an hour; a list has many on a page.
    """

    def __init__(self, connection: AzureConnection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._disks: dict[str, Any] | None = None

    def find(self, resource_id: str, stop: Stop) -> Any | None:
        """The disk as Azure describes it in lists and by itself alike; None if it was not listed, or if this
        identity may not list the subscription's."""
        with self._lock:
            if self._disks is None:
                self._disks = self._all(stop)
        return self._disks.get(resource_id.lower())

    def _all(self, stop: Stop) -> dict[str, Any]:
        action = f"list managed disks of subscription {self._connection.subscription_id}"
        try:
            found = listed(self._connection.compute.disks.list(), action=action, stop=stop)
            return {disk.id.lower(): disk for disk in found}
        except AzureRefused as error:
            _log.warning("each disk is asked for by itself: %s", error)
            return {}


def identify_disk(
    connection: AzureConnection, attached: AttachedDisk, described: Any | None = None
) -> SourceDisk | Exclusion:
    """The disk as its own API describes it, or why it cannot be backed up. `described` is a managed disk as
    Azure has described it already.

    Raises AzureNotFound when the disk has gone since the VM was listed.
    """
    if attached.ephemeral:
        return Exclusion(
            name=attached.name, reason="it is an ephemeral OS disk: nothing of it outlives the VM"
        )
    if not attached.source:
        return Exclusion(name=attached.name, reason="the VM names neither a managed disk nor a VHD for it")
    disk = _managed(connection, attached, described) if attached.managed else _unmanaged(connection, attached)
    reason = refusal(disk)
    return Exclusion(name=attached.name, reason=reason) if reason else disk


def describe_disk(connection: AzureConnection, attached: AttachedDisk) -> Any:
    """A managed disk as its own API describes it. Raises AzureNotFound if it has gone."""
    parts = ResourceId.parse(attached.source)
    with azure_errors(f"read managed disk {attached.name}"):
        return connection.compute.disks.get(parts.group, parts.name)


def image_of(described: Any | None) -> str:
    """What a managed disk was made from, for comparing; empty if nothing is known.

    An image of the platform, of a gallery or of one's own, and which of its disks; a snapshot or disk that it
    is a copy of; an imported VHD, without what follows its address, which may be a secret.

    Source: https://learn.microsoft.com/rest/api/compute/disks/get (CreationData)
    """
    creation = described.creation_data if described is not None else None
    if creation is None:
        return ""
    for image in filter(None, (creation.gallery_image_reference, creation.image_reference)):
        if name := image.id or image.shared_gallery_image_id or image.community_gallery_image_id:
            place = "os" if image.lun is None else f"lun {image.lun}"
            return f"{name} {place}".lower()
    if creation.source_resource_id:
        # A name may be used again, its unique id is not.
        return f"{creation.source_resource_id} {creation.source_unique_id or ''}".strip().lower()
    with contextlib.suppress(ValueError):
        return public_url(creation.source_uri or "").lower()
    return ""


def refusal(disk: SourceDisk) -> str:
    """Why a disk of this kind cannot be backed up; empty when it can."""
    if disk.sector_size != READABLE_SECTOR:
        return (
            f"its sectors are {disk.sector_size} bytes ({disk.sku}); Azure exports such snapshots only as "
            "VHDX, which cannot be read extent by extent"
        )
    if disk.size == 0 or disk.size % READABLE_SECTOR:
        return f"its size of {disk.size} bytes is not a positive multiple of {READABLE_SECTOR}"
    if disk.network_access == "DenyAll":
        return "its network access policy is DenyAll: Azure lets nobody export it or its snapshots"
    if disk.access_authentication == "AzureActiveDirectory":
        return "its data access authentication mode is AzureActiveDirectory, which this version cannot use"
    return ""


def _managed(connection: AzureConnection, attached: AttachedDisk, described: Any | None) -> SourceDisk:
    parts = ResourceId.parse(attached.source)
    disk = describe_disk(connection, attached) if described is None else described
    sector = getattr(disk.creation_data, "logical_sector_size", None) or READABLE_SECTOR
    return SourceDisk(
        name=attached.name,
        role=attached.role,
        lun=attached.lun,
        kind=DiskKind.MANAGED,
        source=disk.id,
        unique_id=disk.unique_id,
        size=disk.disk_size_bytes,
        sku=text(disk.sku.name if disk.sku else None),
        region=disk.location,
        resource_group=parts.group,
        sector_size=sector,
        network_access=text(disk.network_access_policy),
        disk_access=disk.disk_access_id,
        access_authentication=text(disk.data_access_auth_mode),
    )


def _unmanaged(connection: AzureConnection, attached: AttachedDisk) -> SourceDisk:
    address = BlobAddress.parse(attached.source)
    accounts = StorageAccounts(connection)
    account, key = accounts.of(address), accounts.key(address)
    with azure_errors(f"read properties of VHD {address.url}"):
        blob = connection.blob(address.url, key).get_blob_properties()
    if text(blob.blob_type) != "PageBlob":
        raise BadRequest(f"VHD {address.url} is a {text(blob.blob_type)}, expected a page blob")
    if blob.size is None or blob.creation_time is None:
        raise AzureNotFound(f"VHD {address.url} has neither size nor creation time")
    return SourceDisk(
        name=attached.name,
        role=attached.role,
        lun=attached.lun,
        kind=DiskKind.UNMANAGED_PREMIUM if account.is_premium else DiskKind.UNMANAGED,
        source=address.url,
        unique_id=blob.creation_time.isoformat(),
        size=blob.size - VHD_FOOTER,
        sku=account.sku,
        region=account.region,
        resource_group=account.resource_group,
    )


def is_of_subscription(connection: AzureConnection, disk: SourceDisk) -> bool:
    """Whether the connection's subscription holds the disk, or held it: one that is gone is known by its id,
    a VHD by its storage account."""
    if disk.kind is DiskKind.MANAGED:
        return ResourceId.parse(disk.source).subscription.lower() == connection.subscription_id.lower()
    try:
        StorageAccounts(connection).of(BlobAddress.parse(disk.source))
    except AzureNotFound:
        return False
    return True
