"""Which method backs up a disk, and why. Pure decisions over what Azure and the media say."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from vsa.model import DiskBackup, Method, Reason, SnapshotRef

# Azure has no change list across a growth over this size
# (learn.microsoft.com, "Create an incremental snapshot", restrictions).
DIFF_BOUNDARY = 4 * 1024**4


@dataclass(frozen=True)
class Wish:
    """What the subclient and this job ask for. `full_every` 0 means never again after the first."""

    method: Method = Method.CBT
    full: bool = False
    full_every: int = 0
    max_base_age: dt.timedelta = dt.timedelta(days=30)


@dataclass(frozen=True)
class Recorded:
    """A disk's backup as a committed recovery point records it; `slot` is the point's place in the log."""

    slot: int
    backup: DiskBackup


@dataclass(frozen=True)
class Known:
    """What the media knows of a disk: its newest backup, its base, and the point that names the base."""

    latest: Recorded | None = None
    base: SnapshotRef | None = None
    base_point: Recorded | None = None
    base_doubt: str = ""
    """Why that point's contents of the disk are in doubt; empty if they are not."""

    @property
    def turn(self) -> int:
        """How many backups of the disk there are."""
        return self.latest.backup.turn + 1 if self.latest else 0

    @property
    def since_full(self) -> int:
        """How many backups came after the last full."""
        return self.latest.backup.since_full if self.latest else 0


@dataclass(frozen=True)
class Decision:
    """How one disk is read. `parent` is the backup whose index the result builds on; none for a full."""

    method: Method
    reason: Reason
    detail: str = ""
    parent: Recorded | None = None
    base: SnapshotRef | None = None
    distrust_allocation: bool = False


def decide(
    snapshot: SnapshotRef,
    known: Known,
    wish: Wish,
    *,
    now: dt.datetime,
    base_exists: Callable[[SnapshotRef], bool],
) -> Decision:
    """The cheapest method that is certain to be right; anything doubtful falls back, with its reason."""
    return (
        _full_wanted(known, wish)
        or _lineage_broken(snapshot, known)
        or _crc_wanted(known, wish)
        or _base_useless(snapshot, known, wish, now, base_exists)
        or _by_cbt(known)
    )


def _full_wanted(known: Known, wish: Wish) -> Decision | None:
    if known.latest is None:
        return Decision(Method.FULL, Reason.FULL_FIRST)
    if wish.full:
        return Decision(Method.FULL, Reason.FULL_REQUESTED, "asked for by this job")
    if wish.full_every and known.since_full + 1 >= wish.full_every:
        return Decision(Method.FULL, Reason.FULL_REQUESTED, f"every {wish.full_every} jobs")
    return None


def _lineage_broken(snapshot: SnapshotRef, known: Known) -> Decision | None:
    """A disk that is not what it was: nothing recorded of it can be compared with."""
    if known.latest is None:
        return None
    before = known.latest.backup.snapshot
    if before.source_unique_id != snapshot.source_unique_id:
        detail = f"unique id was {before.source_unique_id}, is {snapshot.source_unique_id}"
        return Decision(Method.FULL, Reason.FULL_LINEAGE, detail)
    if snapshot.size < before.size:
        # Rows beyond the new end would come back to life if the disk grew again.
        return Decision(Method.FULL, Reason.FULL_LINEAGE, f"shrank from {before.size} bytes")
    if _crosses_boundary(before.size, snapshot.size):
        return Decision(Method.FULL, Reason.FULL_RESIZED_4TB, f"grew from {before.size} bytes")
    return None


def _crosses_boundary(before: int, after: int) -> bool:
    """Whether a growth may have lost the change list. What Azure does at exactly 4 TiB is not documented."""
    return before < after and before <= DIFF_BOUNDARY <= after


def _crc_wanted(known: Known, wish: Wish) -> Decision | None:
    if wish.method is Method.CRC:
        return crc(known, Reason.CRC_REQUESTED)
    if known.base_doubt:
        # Nothing may build on a doubtful point, and the list of what is allocated may lie as the changes did.
        return crc(known, Reason.CRC_AUDIT_FAILED, known.base_doubt, distrust_allocation=True)
    return None


def _base_useless(
    snapshot: SnapshotRef,
    known: Known,
    wish: Wish,
    now: dt.datetime,
    base_exists: Callable[[SnapshotRef], bool],
) -> Decision | None:
    if known.base is None or known.base_point is None:
        return crc(known, Reason.CRC_NO_BASE, "no earlier job left a base snapshot")
    if unfit := _unfit(known.base, snapshot):
        return crc(known, Reason.CRC_NO_BASE, unfit)
    age = now - known.base.taken_at
    if age > wish.max_base_age:
        return crc(known, Reason.CRC_BASE_TOO_OLD, f"base is {age.days} days old")
    if not base_exists(known.base):
        return crc(known, Reason.CRC_BASE_GONE, f"base {known.base.moment or known.base.id} is gone")
    return None


def _unfit(base: SnapshotRef, snapshot: SnapshotRef) -> str:
    """Why no change list leads from the base to the snapshot; empty if one can be asked for.

    Jobs by CRC leave the base where it is, so it may be from before what the newest backup has seen.
    """
    if (base.source_unique_id, base.family) != (snapshot.source_unique_id, snapshot.family):
        return "the base is of a disk that this one has replaced"
    if snapshot.size < base.size:
        return f"the disk has shrunk from {base.size} bytes since the base"
    if _crosses_boundary(base.size, snapshot.size):
        return f"the disk has grown from {base.size} bytes since the base"
    return ""


def _by_cbt(known: Known) -> Decision:
    return Decision(Method.CBT, Reason.CBT, parent=known.base_point, base=known.base)


def crc(known: Known, reason: Reason, detail: str = "", *, distrust_allocation: bool = False) -> Decision:
    """Compare with the newest backup what is allocated or, with `distrust_allocation`, everything."""
    return Decision(
        Method.CRC,
        reason,
        detail,
        parent=known.latest,
        distrust_allocation=distrust_allocation,
    )
