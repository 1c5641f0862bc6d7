"""The store of a location."""

# obstore costs a twentieth of a second to load, which media in a folder need not pay.
# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vsa.errors import BadRequest, MediaDamaged, MediaUnusable, NoMedia
from vsa.media import layout
from vsa.media.access import StoreAccess
from vsa.media.descriptor import FORMAT
from vsa.media.folder import FolderStore
from vsa.media.location import BlobContainer, Bucket, Place, around, place_of
from vsa.media.retrying import RetryingStore
from vsa.media.store import Store

if TYPE_CHECKING:
    from vsa.media.cloud import CloudStore, Service

Random = Callable[[int], bytes]


def open_store(location: str, access: StoreAccess, *, random: Random) -> Store:
    """The store there; nothing is written. BadRequest for what is no location, NoMedia for no folder."""
    return _open(place_of(location), access, random)


def _open(place: Place, access: StoreAccess, random: Random) -> Store:
    if isinstance(place, Path):
        return FolderStore(place, random=random)
    return RetryingStore(_cloud(place, access, random))


def make_store(location: str, access: StoreAccess, *, random: Random) -> Store:
    """A store that is proven to be fit for new media; MediaConflict if anything at all is there, BadRequest
    if it lies inside other media.

    A folder is made. A container or bucket is not: its owner decides on its protection first.
    """
    place = place_of(location)
    _require_outside(place, access, random)
    if isinstance(place, Path):
        return FolderStore.make(place, random=random)
    cloud = _cloud(place, access, random)
    store = RetryingStore(cloud)
    store.repeated(cloud.require_empty)
    store.prepare_for_writing()
    return store


def _require_outside(place: Place, access: StoreAccess, random: Random) -> None:
    """Before anything is made: not even a folder belongs into media."""
    for outer in around(place):
        # Who may not look there, or finds no place there, sees no media; what else has that name is none.
        with suppress(NoMedia, MediaUnusable, MediaDamaged):
            found = _open(outer, access, random).read(layout.MEDIA, limit=layout.MAX_DOCUMENT_SIZE)
            if FORMAT.encode() in found:
                raise BadRequest(
                    f"{place} lies inside the media at {outer}: new media needs a place of its own"
                )


def _cloud(place: BlobContainer | Bucket, access: StoreAccess, random: Random) -> CloudStore:
    from vsa.media.cloud import CloudStore

    return CloudStore(_service(place, access), random=random)


def _service(place: BlobContainer | Bucket, access: StoreAccess) -> Service:
    if isinstance(place, BlobContainer):
        from vsa.media.azure_blob import blob_service

        return blob_service(place, access)
    from vsa.media.s3 import s3_service

    return s3_service(place, access)
