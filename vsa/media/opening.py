"""The store of media, made or found at a location, and unlocked if the media is sealed.

Light: what seals is loaded where the media is sealed.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from vsa.errors import MediaConflict
from vsa.media.access import StoreAccess
from vsa.media.descriptor import describe_new, read_descriptor, require_extent_size
from vsa.media.places import make_store, open_store
from vsa.media.store import Store

if TYPE_CHECKING:
    from vsa.media.key_ring import Unlocked
    from vsa.media.wrapping import WrappingKey

Random = Callable[[int], bytes]


def make(
    location: str,
    access: StoreAccess,
    wrapping: WrappingKey | None,
    *,
    extent_size: int,
    now: datetime,
    random: Random,
) -> tuple[Store, Unlocked | None]:
    """The store with new media in it, sealed if a key is given. Errors as in `Media.create`."""
    require_extent_size(extent_size)
    try:
        store = make_store(location, access, random=random)
    except MediaConflict as error:
        raise _interrupted(open_store(location, access, random=random)) or error from error
    if wrapping is None:
        describe_new(store, extent_size=extent_size, now=now, random=random)
        return store, None
    from vsa.media.key_ring import Unlocked, seal_new

    return store, Unlocked(seal_new(store, wrapping, extent_size=extent_size, now=now, random=random), 0)


def unlock(
    location: str, access: StoreAccess, wrapping: WrappingKey | None, *, random: Random
) -> tuple[Store, Unlocked | None]:
    """The store of existing media. Errors as in `Media.open`."""
    store = open_store(location, access, random=random)
    about, described = read_descriptor(store)
    if not about.sealed and wrapping is None:
        return store, None
    from vsa.media.key_ring import unlock

    return store, unlock(store, about, described, wrapping, random=random)


def _interrupted(store: Store) -> MediaConflict | None:
    from vsa.media.key_ring import interrupted_init

    return interrupted_init(store)
