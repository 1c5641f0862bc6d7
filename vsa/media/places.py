"""The store of a location."""

# obstore costs a twentieth of a second to load, which media in a folder need not pay.
# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vsa.media.access import StoreAccess
from vsa.media.folder import FolderStore
from vsa.media.location import BlobContainer, Bucket, place_of
from vsa.media.retrying import RetryingStore
from vsa.media.store import Store

if TYPE_CHECKING:
    from vsa.media.cloud import CloudStore, Service

Random = Callable[[int], bytes]


def open_store(location: str, access: StoreAccess, *, random: Random) -> Store:
    """The store there; nothing is written. BadRequest for what is no location, NoMedia for no folder."""
    place = place_of(location)
    if isinstance(place, Path):
        return FolderStore(place, random=random)
    return RetryingStore(_cloud(place, access, random))


def make_store(location: str, access: StoreAccess, *, random: Random) -> Store:
    """A store that is proven to be fit for new media; MediaConflict if anything at all is there.

    A folder is made. A container or bucket is not: its owner decides on its protection first.
    """
    place = place_of(location)
    if isinstance(place, Path):
        return FolderStore.make(place, random=random)
    cloud = _cloud(place, access, random)
    store = RetryingStore(cloud)
    store.repeated(cloud.require_empty)
    store.prepare_for_writing()
    return store


def _cloud(place: BlobContainer | Bucket, access: StoreAccess, random: Random) -> CloudStore:
    from vsa.media.cloud import CloudStore

    return CloudStore(_service(place, access), random=random)


def _service(place: BlobContainer | Bucket, access: StoreAccess) -> Service:
    if isinstance(place, BlobContainer):
        from vsa.media.azure_blob import blob_service

        return blob_service(place, access)
    from vsa.media.s3 import s3_service

    return s3_service(place, access)
