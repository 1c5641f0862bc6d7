"""Other keys for sealed media: one more beside those there are, or one in their place.

The data key stays, and so does all data. Whatever moment somebody is killed at, a key that opened the media
still does, or the new one does: a new document is opened from the store before the log retires older ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from vsa.errors import BadRequest, MediaDamaged, VsaError
from vsa.media.entries import RotateEntry
from vsa.media.keys import KeyDocument, unwrap
from vsa.media.media import Media
from vsa.media.wrapping import WrappingKey

Random = Callable[[int], bytes]


@dataclass(frozen=True)
class KeyState:
    """One key document: what opens it in words, and whether it counts and the key at hand opens it."""

    number: int
    way: str
    created: datetime
    retired: bool
    opens: bool


@dataclass(frozen=True)
class Rotation:
    """What a rotation will make and retire. `lost` are keys that will not open the media any more, although
    they are neither the key that was given nor the new one."""

    retired: tuple[str, ...]
    lost: tuple[str, ...]


def key_states(media: Media, given: WrappingKey) -> tuple[list[KeyState], list[MediaDamaged]]:
    """Every key document and what becomes of it with this key; and what is wrong with unreadable ones."""
    current = media.view().key
    sound, damaged = media.key_ring.documents()
    states = [
        KeyState(
            document.number,
            str(document.way),
            document.created,
            retired=document.number < current,
            opens=_opens(document, given),
        )
        for document in sound
    ]
    return states, damaged


def add_key(media: Media, given: WrappingKey, new: WrappingKey, *, now: datetime, random: Random) -> int:
    """Let `new` open the media, too; the number of its document. Nothing is retired."""
    data_key, _ = media.key_ring.open(given)
    return media.key_ring.add(data_key, new, now=now, random=random)


def plan_rotation(media: Media, given: WrappingKey, new: WrappingKey) -> Rotation:
    """What rotating would retire: every document that counts now."""
    current = media.view().key
    counting = [item for item in media.key_ring.documents()[0] if item.number >= current]
    lost = [item for item in counting if not _opens(item, given) and not _opens(item, new)]
    return Rotation(tuple(map(_told, counting)), tuple(map(_told, lost)))


def rotate_key(
    media: Media,
    given: WrappingKey,
    new: WrappingKey,
    plan: Rotation,
    *,
    lose_others: bool = False,
    reason: str = "",
    now: datetime,
    random: Random,
) -> int:
    """Let `new` alone open the media, in place of all keys of `plan`; the number of its document.

    BadRequest, before anything is done, if others than the given key would be lost and `lose_others` does not
    allow it. MediaConflict if somebody else has retired the new document meanwhile.
    """
    if plan.lost and not lose_others:
        raise BadRequest(
            f"{media.location}: rotation would retire {', '.join(plan.lost)}, too, which another key opens: "
            "allow it (--all), and add that key again afterwards"
        )
    number = add_key(media, given, new, now=now, random=random)
    media.append(RotateEntry(key=number, reason=reason))
    return number


def _opens(document: KeyDocument, key: WrappingKey) -> bool:
    try:
        return key.fits(document.way) and bool(unwrap(document, key))
    except VsaError:
        return False


def _told(document: KeyDocument) -> str:
    return f"{document.name} ({document.way})"
