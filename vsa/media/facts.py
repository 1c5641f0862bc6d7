"""What single entries of the log have come to mean, as a view of it holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from vsa.media.entries import DamageEntry, JobEntry, RelocateEntry
from vsa.media.packed import unpack
from vsa.model import Point


@dataclass(frozen=True, slots=True)
class CommittedPoint:
    """A recovery point in the log, kept as bytes: a long log holds tens of thousands.

    `client` is the key of its VM, `disks` are the keys of the disks it holds.
    """

    slot: int
    time: datetime
    run: str
    client: str
    disks: tuple[str, ...]
    _packed: bytes = field(repr=False)

    @property
    def point(self) -> Point:
        return unpack(self._packed, Point.model_validate_json)


@dataclass(frozen=True, slots=True)
class ReportedJob:
    """A job's report in the log, kept as bytes."""

    slot: int
    time: datetime
    _packed: bytes = field(repr=False)

    @property
    def job(self) -> JobEntry:
        return unpack(self._packed, JobEntry.model_validate_json)


class Latest(NamedTuple):
    """The newest time that an entry of the log claims for itself, and the slot of the first that does."""

    slot: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Doubt:
    """Slot `slot` of the log says that a point's contents of one disk are in doubt."""

    slot: int
    disk_key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Damage:
    """Slot `slot` of the log says that objects are damaged, and whom that harmed then."""

    slot: int
    entry: DamageEntry


@dataclass(frozen=True, slots=True)
class Relocation:
    """Slot `slot` of the log says that frames lie elsewhere now."""

    slot: int
    entry: RelocateEntry


WHOLE: frozenset[int] = frozenset()
"""In place of offsets: all of an object is damaged, not only some of its frames."""
