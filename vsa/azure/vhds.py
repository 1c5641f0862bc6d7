"""The VHDs on which a media has left snapshots or staging blobs, though nobody knows those VHDs any more.

Unmanaged disks are in no list of a subscription: they are blobs. So the accounts are gone through that hold a
VHD which the caller knows or which a VM has as a disk, all their containers, up to a bound; what lies beyond
it, and in other accounts, is not looked at, which is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from vsa.azure.accounts import StorageAccounts
from vsa.azure.blob_address import BlobAddress
from vsa.azure.connection import AzureConnection, StorageAccount
from vsa.azure.disks import VHD_FOOTER
from vsa.azure.errors import azure_errors
from vsa.azure.marks import DISK, MEDIA, in_metadata
from vsa.azure.staging import CONTAINER, found_staging
from vsa.azure.vms import attached_vhds
from vsa.errors import AzureNotFound, BadRequest, VsaError
from vsa.model import DiskKind, DiskRole, SourceDisk
from vsa.stop import Stop, again

MOST_BLOBS = 20_000
"""Blobs and snapshots of one account that are looked at: four requests."""


@dataclass(frozen=True)
class MarkedVhds:
    """What was found, by disk key. `unseen` could not be looked at, `beyond` is not, both in words."""

    disks: dict[str, SourceDisk] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)


def marked_vhds(
    connection: AzureConnection,
    media: str,
    known: Iterable[SourceDisk],
    stop: Stop,
    *,
    most: int = MOST_BLOBS,
) -> MarkedVhds:
    """The VHDs that snapshots or staging blobs with this media's marks are of, in the accounts of the `known`
    disks and of VMs' disks; `most` blobs of each account are looked at."""
    found = MarkedVhds()
    urls = [disk.source for disk in known if disk.kind is not DiskKind.MANAGED]
    try:
        urls += attached_vhds(connection, stop)
    except VsaError as error:
        found.unseen.append(f"storage accounts that only VMs name were not looked at: {error}")
    for account, address in _accounts_of(urls).items():
        try:
            again(partial(_look_into, connection, address, media, found, most=most), stop=stop)
        except AzureNotFound:
            # Of another subscription, or gone with all that was in it.
            continue
        except VsaError as error:
            found.unseen.append(f"storage account {account} was not looked through: {error}")
    others = connection.storage_accounts.keys() - _accounts_of(urls).keys()
    if others:
        found.beyond.append(
            f"storage accounts in which neither the media nor a VM has a VHD: {len(others)} of them"
        )
    return found


def _accounts_of(urls: Iterable[str]) -> dict[str, BlobAddress]:
    accounts: dict[str, BlobAddress] = {}
    for url in urls:
        try:
            address = BlobAddress.parse(url)
        except BadRequest:
            # A VM may name anything; what is no blob has no snapshots.
            continue
        accounts.setdefault(address.account.lower(), address)
    return accounts


def _look_into(
    connection: AzureConnection, address: BlobAddress, media: str, found: MarkedVhds, *, most: int
) -> None:
    accounts = StorageAccounts(connection)
    account, key = accounts.of(address), accounts.key(address)
    with azure_errors(f"list the blobs of storage account {account.name}"):
        containers = [item.name for item in connection.blobs(address.account_url, key).list_containers()]
        blobs = _blobs(connection, address, key=key, containers=containers)
        for place, blob in islice(blobs, most):
            disk = _disk_of(place._replace(name=blob.name), blob, account, media)
            if disk is not None:
                found.disks.setdefault(disk.key, disk)
        if next(blobs, None) is not None:
            found.beyond.append(f"storage account {account.name} beyond its first {most} blobs and snapshots")


def _blobs(
    connection: AzureConnection, address: BlobAddress, *, key: Any, containers: Iterable[str]
) -> Iterator[tuple[BlobAddress, Any]]:
    for name in containers:
        place = address.beside(name, "")
        listed = connection.container(place.container_url, key).list_blobs(
            include=["snapshots", "metadata", "copy"]
        )
        yield from ((place, blob) for blob in listed)


def _disk_of(place: BlobAddress, blob: Any, account: StorageAccount, media: str) -> SourceDisk | None:
    """The disk that the blob is a marked snapshot or a marked staging blob of; None if it is neither."""
    marks = blob.metadata or {}
    if marks.get(in_metadata(MEDIA)) != media:
        return None
    source = _staged_from(blob, place) if place.container == CONTAINER else place
    if source is None or not (blob.snapshot or place.container == CONTAINER):
        return None
    disk = _remembered(source, blob, account)
    if marks.get(in_metadata(DISK)) != disk.key:
        return None
    staged = found_staging(blob, place.container_url, disk.key, media)
    return disk if blob.snapshot or staged else None


def _staged_from(blob: Any, place: BlobAddress) -> BlobAddress | None:
    """The VHD that a staging blob is a copy of; copies are made within an account."""
    try:
        source = BlobAddress.parse(blob.copy.source or "")
    except BadRequest:
        return None
    return source if source.account.lower() == place.account.lower() else None


def _remembered(source: BlobAddress, blob: Any, account: StorageAccount) -> SourceDisk:
    return SourceDisk(
        name=source.name.rsplit("/", 1)[-1].removesuffix(".vhd"),
        role=DiskRole.DATA,
        lun=None,
        kind=DiskKind.UNMANAGED_PREMIUM if account.is_premium else DiskKind.UNMANAGED,
        source=source.url,
        unique_id="",
        size=max(0, (blob.size or 0) - VHD_FOOTER),
        sku=account.sku,
        region=account.region,
        resource_group=account.resource_group,
    )
