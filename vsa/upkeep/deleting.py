"""Deletes what the log has doomed, and what nothing refers to; nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vsa.errors import DeleteRefused, MediaDamaged, ObjectMissing, TryAgainLater
from vsa.fault_points import FaultPoint, reached
from vsa.media import layout
from vsa.media.store import Store
from vsa.media.view import View
from vsa.progress import Progress
from vsa.threads import Threads

_AT_A_TIME = 8


@dataclass(frozen=True)
class Deleted:
    """What was deleted. The store keeps `refused` objects for now, for the reason that one of them had."""

    objects: int = 0
    size: int = 0
    refused: int = 0
    reason: str = ""

    def __add__(self, other: Deleted) -> Deleted:
        return Deleted(
            self.objects + other.objects,
            self.size + other.size,
            self.refused + other.refused,
            self.reason or other.reason,
        )


def doomed_now(view: View, names: Iterable[str], needed: Iterable[str]) -> list[str]:
    """Those of the names that may be deleted. `view` has read the doom entries back; `needed` is what its
    points need. MediaDamaged if the log doomed any of that: then nothing may be deleted at all.

    Samples of digests are a cache: a point may name some that were doomed before it was committed.
    """
    contradicting = (name for name in needed if name in view.doomed and not layout.is_digests(name))
    if lost := next(contradicting, None):
        raise MediaDamaged(
            f"the log dooms {lost}, which a recovery point needs: "
            "it contradicts itself, so nothing is deleted; keep the media as it is"
        )
    return [name for name in names if name in view.doomed and layout.run_of(name) is not None]


def delete(store: Store, names: Iterable[str], progress: Progress) -> Deleted:
    """Delete each of the names, doomed or superseded; one that is kept does not keep the others."""
    progress.started("deleting", 0)
    try:
        with Threads(_AT_A_TIME) as pool:
            done = pool.map(lambda name: _delete(store, name, progress), names)
            return sum(done, Deleted())
    finally:
        progress.finished()


def _delete(store: Store, name: str, progress: Progress) -> Deleted:
    try:
        size = _size(store, name)
        store.delete(name)
        reached(FaultPoint.OBJECT_DELETED)
    except ObjectMissing:
        return Deleted()
    except (DeleteRefused, TryAgainLater) as error:
        return Deleted(refused=1, reason=str(error))
    progress.advanced(size)
    return Deleted(objects=1, size=size)


def _size(store: Store, name: str) -> int:
    """Bytes of an object; 0 of a sealed one that does not say it any more, which may go all the same."""
    try:
        return store.size(name)
    except ObjectMissing:
        raise
    except MediaDamaged:
        return 0
