"""Which checkpoint may stand for the beginning of the log, and when another one is worth its bytes.

Light: what reads Parquet is loaded once there is a checkpoint to read or to write.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable

from vsa.errors import MediaConflict, MediaDamaged, ObjectMissing, VsaError
from vsa.media import layout
from vsa.media.store import Store
from vsa.media.view import View

EVERY = 1000
"""Entries after which another checkpoint is worth its bytes."""
KEPT = 2
"""Checkpoints that pruning leaves: the newest, and one to fall back to."""

_log = logging.getLogger(__name__)


class Recalling:
    """`newest`, to be called once. Not a method of the media: with the log they would hold each other, and
    their folder open, until the garbage collector comes."""

    def __init__(self, store: Store, media_id: str) -> None:
        self._store = store
        self._media_id = media_id
        self.slot: int | None = None
        """Of the checkpoint that was believed, if any."""

    def __call__(self) -> View | None:
        view = newest(self._store, self._media_id)
        self.slot = None if view is None else view.head - 1
        return view


def newest(store: Store, media_id: str) -> View | None:
    """What the newest checkpoint says that can be believed; None if there is none.

    What is wrong with one is logged and no error: the next older one, or the log itself, serves as well.
    """
    for slot in reversed(_slots(_listed(store))):
        try:
            return believed(store, slot, media_id)
        except VsaError as error:
            _log.warning("a checkpoint is passed over: %s", error)
    return None


def write_if_due(store: Store, view: View, media_id: str, *, every: int, known: int | None = None) -> bool:
    """Store a checkpoint of `view` if the newest good one is `every` entries older; whether one is there now.

    One that nobody can believe counts for nothing: another one is to take its place. `known` is the slot of
    one that need not be read for that. Never an error: it is a cache, and whoever asks has done what
    matters.
    """
    recent = view.head - every
    if recent < 0:
        return False
    try:
        slots = [slot for slot in _slots(_listed(store)) if slot >= recent]
        if known in slots or any(misfit(store, slot, media_id) == "" for slot in reversed(slots)):
            return False
        return _write(store, view, media_id)
    except VsaError as error:
        _log.warning("no checkpoint was written: %s", error)
        return False


def misfit(store: Store, slot: int, media_id: str) -> str | None:
    """Why nobody can believe the checkpoint of a slot; empty if it can be believed, None if it is gone."""
    try:
        believed(store, slot, media_id)
    except ObjectMissing as error:
        return None if _is_gone(store, slot) else str(error)
    except MediaDamaged as error:
        return str(error)
    return ""


def _write(store: Store, view: View, media_id: str) -> bool:
    from vsa.media.checkpoint import MAX_SIZE, encode

    name, data = layout.checkpoint(view.head - 1), encode(view, media_id)
    if len(data) > MAX_SIZE:
        _log.warning("%s would have %d bytes, more than any reader takes: not written", name, len(data))
        return False
    try:
        store.create(name, [data])
    except MediaConflict:
        _log.info("%s is there already, which serves as well", name)
    return True


def _is_gone(store: Store, slot: int) -> bool:
    """Whether a prune has deleted it since it was listed."""
    try:
        store.size(layout.checkpoint(slot))
    except ObjectMissing:
        return True
    return False


def believed(store: Store, slot: int, media_id: str) -> View:
    """What a checkpoint says; MediaDamaged if it is not as it was written, or is of another log."""
    from vsa.media.checkpoint import MAX_SIZE, decode

    name = layout.checkpoint(slot)
    view = decode(store.read(name, limit=MAX_SIZE), name, slot=slot, media_id=media_id)
    entry = store.read(layout.slot(slot), limit=layout.MAX_DOCUMENT_SIZE)
    if hashlib.sha256(entry).hexdigest() != view.head_hash:
        raise MediaDamaged(f"{name} is of another log: it has another entry in slot {slot}")
    return view


def _listed(store: Store) -> list[str]:
    try:
        return list(store.names(layout.CHECKPOINTS))
    except VsaError as error:
        _log.warning("no checkpoints were found: %s", error)
        return []


def _slots(names: Iterable[str]) -> list[int]:
    """The slots of the checkpoints among the names, ascending."""
    return sorted({slot for name in names if (slot := layout.checkpoint_slot(name)) is not None})
