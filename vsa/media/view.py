"""The log folded into what it means (docs/media-format.md, "Meaning of the log").

Pure: entries in, view out. vsa/media/fold.py says what each kind of entry changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Self

from vsa.media.entries import ClientEntry, Damaged, DamageEntry, Entry, Harm
from vsa.media.facts import WHOLE, CommittedPoint, Damage, Doubt, Latest, Relocation, ReportedJob
from vsa.media.fold import Fold
from vsa.media.witness import Witness
from vsa.model import DiskBackup, IndexRef, SnapshotRef

__all__ = ["WHOLE", "CommittedPoint", "Damage", "Doubt", "Latest", "Relocation", "ReportedJob", "View"]


@dataclass(frozen=True)
class View:
    """What slots 0 to `head` - 1 say; later entries make another view and leave this one as it is.

    `head` is the next free slot and `head_hash` the sha256 of the entry before it (of media.json if there is
    none). The tables may be read from a checkpoint as they are asked for; what they give is the same.
    """

    head: int
    head_hash: str
    latest: Latest | None = None
    """The newest time that any entry claims: what is written after it counts as written no earlier."""
    clients: Mapping[str, ClientEntry] = field(default_factory=dict)
    points: Mapping[int, CommittedPoint] = field(default_factory=dict)
    """Every point that has not been given up, forgotten ones included."""
    jobs: Mapping[int, ReportedJob] = field(default_factory=dict)
    committed: Mapping[str, int] = field(default_factory=dict)
    """Slot of the point that each run committed, also of points that were given up since."""
    fenced: Set[str] = frozenset()
    """Runs that may no longer commit."""
    doomed: Set[str] = frozenset()
    """Objects that are deleted, or may be at any moment."""
    given_up: Set[int] = frozenset()
    """Forgotten points whose data is doomed: they cannot be called back."""
    forgotten: Mapping[int, datetime] = field(default_factory=dict)
    """Since when each point is forgotten that could still be called back: the effective time of the entry."""
    pinned: Set[int] = frozenset()
    doubtful: Mapping[int, tuple[Doubt, ...]] = field(default_factory=dict)
    relocations: tuple[Relocation, ...] = ()
    """In log order; each applies to what the ones before it have made of a row."""
    damages: tuple[Damage, ...] = ()
    damaged: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Objects that were found damaged: offsets of their bad frames, or WHOLE. For ever: what is healed lies
    elsewhere, and nothing may be led back to a place that has decayed once."""
    healed: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """The part of `damaged` that no row leads to any more."""
    key: int = 0
    """Of sealed media: key documents with a lower number are retired, they open it no longer."""
    _history: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    _bases: Mapping[str, tuple[int, SnapshotRef]] = field(default_factory=dict, repr=False)

    @property
    def witness(self) -> Witness | None:
        """The last entry, named; None while the log is empty."""
        return Witness(slot=self.head - 1, sha256=self.head_hash) if self.head else None

    @property
    def live(self) -> list[CommittedPoint]:
        """The points that nobody has forgotten, in log order."""
        return [made for slot, made in self.points.items() if slot not in self.forgotten]

    def points_of_disk(self, disk_key: str) -> tuple[int, ...]:
        """The slots of the points that hold the disk and are not forgotten, in log order."""
        return tuple(
            slot
            for slot in self._history.get(disk_key, ())
            if slot in self.points and slot not in self.forgotten
        )

    def latest_point_of_disk(self, disk_key: str) -> tuple[int, DiskBackup] | None:
        """The newest point that holds the disk, by log order, and that disk's part of it."""
        slots = self.points_of_disk(disk_key)
        if not slots:
            return None
        disks = self.points[slots[-1]].point.disks
        return slots[-1], next(disk for disk in disks if disk.disk.key == disk_key)

    def newest_points(self) -> tuple[int, ...]:
        """The slots of the points that are the newest of any disk and not forgotten, newest first."""
        newest = (
            next((slot for slot in reversed(slots) if self._is_kept(slot)), None)
            for slots in self._history.values()
        )
        return tuple(sorted({slot for slot in newest if slot is not None}, reverse=True))

    def harm_of(self, slot: int) -> tuple[Harm, ...]:
        """What of a point is lost to damage that has not been healed."""
        found = [self._left_of(harm, entry) for harm, entry in self._harms.get(slot, ())]
        return tuple(harm for harm in found if harm.ranges)

    @cached_property
    def _harms(self) -> dict[int, list[tuple[Harm, DamageEntry]]]:
        """By the slot of each point, what damage that is not wholly healed has harmed of it.

        Made once for all points: looking at all damage for each of them would cost the product of both.
        """
        harms: dict[int, list[tuple[Harm, DamageEntry]]] = {}
        for damage in self.damages:
            if not all(self._is_healed(item) for item in damage.entry.objects):
                for harm in damage.entry.harm:
                    for slot in set(harm.points):
                        harms.setdefault(slot, []).append((harm, damage.entry))
        return harms

    def _left_of(self, harm: Harm, entry: DamageEntry) -> Harm:
        """The ranges of it whose frames have not been replaced."""
        healed = self.healed.get(entry.objects[0].name, WHOLE) if len(entry.objects) == 1 else WHOLE
        if healed.isdisjoint(harm.offsets):
            return harm
        left = [pair for pair in zip(harm.ranges, harm.offsets, strict=True) if pair[1] not in healed]
        ranges, offsets = zip(*left, strict=True) if left else ((), ())
        return harm.model_copy(update={"ranges": ranges, "offsets": offsets})

    def _is_healed(self, item: Damaged) -> bool:
        healed = self.healed.get(item.name)
        if healed is None or healed == WHOLE:
            return healed is not None
        return bool(item.offsets) and healed.issuperset(item.offsets)

    def sound_indexes(self) -> dict[str, IndexRef]:
        """Copies that stand in for damaged indexes, by the name of those."""
        return {moved.name: moved.ref for item in self.relocations for moved in item.entry.indexes}

    def is_lost(self, name: str) -> bool:
        """Whether an object was found damaged as a whole, and no copy has taken its place."""
        return self.damaged.get(name) == WHOLE and self.healed.get(name) != WHOLE

    def is_damaged(self, name: str, offset: int) -> bool:
        """Whether a frame was found damaged, by itself or with the whole of its pack."""
        bad = self.damaged.get(name)
        return bad is not None and (bad == WHOLE or offset in bad)

    def base_of(self, disk_key: str) -> tuple[int, SnapshotRef] | None:
        """The base snapshot that the next comparison of the disk starts from, and the point that named it."""
        base = self._bases.get(disk_key)
        return None if base is None or not self._is_kept(base[0]) else base

    def bases(self) -> Mapping[str, tuple[int, SnapshotRef]]:
        """Every base snapshot that is kept, by disk key."""
        return {key: base for key, base in self._bases.items() if self._is_kept(base[0])}

    def _is_kept(self, slot: int) -> bool:
        return slot in self.points and slot not in self.forgotten

    def extended(
        self, entries: Iterable[tuple[Entry, str]], *, believed_until: datetime | None = None
    ) -> Self:
        """This view and the entries that follow it, in log order, each with the sha256 of its bytes.

        Times after `believed_until` are known to be wrong: they count for no entry but their own.
        """
        fold: Fold | None = None
        for entry, digest in entries:
            fold = fold or Fold(self, believed_until)
            fold.add(entry, digest)
        return self if fold is None else fold.frozen(type(self))
