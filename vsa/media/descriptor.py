"""media.json: what this media is, written once by `vsa init` (docs/media-format.md, "media.json")."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from itertools import islice
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from vsa.errors import BadRequest, MediaDamaged, NewerVersion, NoMedia, ObjectMissing
from vsa.media import documents, layout
from vsa.media.store import Store
from vsa.model import Noun, utc

FORMAT: Literal["azure-vsa media"] = "azure-vsa media"


class MediaDescriptor(Noun):
    """`required_features` names what a reader must know beyond version 1 to understand this media."""

    format: Literal["azure-vsa media"] = FORMAT
    version: Literal[1] = 1
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    created: AwareDatetime
    extent_size: Annotated[int, Field(ge=layout.MIN_EXTENT_SIZE, le=layout.MAX_EXTENT_SIZE)]
    required_features: tuple[str, ...] = ()
    software: str

    @property
    def sealed(self) -> bool:
        return layout.SEALED in self.required_features


def new_descriptor(
    *,
    extent_size: int,
    now: datetime,
    random: Callable[[int], bytes],
    media_id: bytes | None = None,
    sealed: bool = False,
) -> MediaDescriptor:
    """What new media is. `media_id` is that of media which is made again; else it has a new one."""
    return MediaDescriptor(
        id=(media_id or random(16)).hex(),
        created=utc(now),
        extent_size=extent_size,
        required_features=(layout.SEALED,) if sealed else (),
        software=software(),
    )


def describe_new(
    store: Store,
    *,
    extent_size: int,
    now: datetime,
    random: Callable[[int], bytes],
    media_id: bytes | None = None,
) -> None:
    """Write media.json of unsealed media into an empty store; MediaConflict if somebody else just did.

    For sealed media it is `key_ring.seal_new` that begins.
    """
    about = new_descriptor(extent_size=extent_size, now=now, random=random, media_id=media_id)
    store.create(layout.MEDIA, [documents.encode(about)])


def require_extent_size(extent_size: int) -> None:
    """BadRequest unless extents of this size can be numbered and kept in memory."""
    power_of_two = extent_size > 0 and extent_size & (extent_size - 1) == 0
    if not power_of_two or not layout.MIN_EXTENT_SIZE <= extent_size <= layout.MAX_EXTENT_SIZE:
        raise BadRequest(
            f"extents of {extent_size} bytes: expected a power of two "
            f"from {layout.MIN_EXTENT_SIZE} to {layout.MAX_EXTENT_SIZE}"
        )


def software() -> str:
    """Who writes, for people who look at media later; nothing depends on it."""
    return f"azure-vsa {version('azure-vsa')}"


def read_descriptor(store: Store) -> tuple[MediaDescriptor, bytes]:
    """media.json and its bytes.

    NoMedia if the place holds none, NewerVersion if only a newer version can read it, MediaDamaged if
    it was one and has been altered.
    """
    data = _read(store)
    name = f"{store.location}: {layout.MEDIA}"
    if FORMAT.encode() not in data:
        raise NoMedia(f"{name} was not written by azure-vsa: this is something else's folder")
    fields = documents.decode_loosely(data, name)
    if fields.get("version") != layout.FORMAT_VERSION:
        raise NewerVersion(f"{name} is of format version {fields.get('version')}, not 1: upgrade azure-vsa")
    unknown = set(map(str, fields.get("required_features", ()))) - layout.KNOWN_FEATURES
    if unknown:
        raise NewerVersion(
            f"{name} requires features not known here, {', '.join(sorted(unknown))}: upgrade azure-vsa"
        )
    return documents.decode(data, MediaDescriptor, name), data


def _read(store: Store) -> bytes:
    try:
        return store.read(layout.MEDIA, limit=layout.MAX_DOCUMENT_SIZE)
    except ObjectMissing as error:
        if any(True for _ in store.names(layout.LOG)):
            raise MediaDamaged(
                f"{store.location}: {layout.MEDIA} is missing, though a log is there"
            ) from error
        found = ", ".join(islice(store.names(""), 3))
        what = f"it holds other things ({found})" if found else "it is empty"
        raise NoMedia(f"{store.location}: no backup media there, {what}; `vsa init` makes one") from error
