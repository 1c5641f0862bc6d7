"""What the log can say (docs/media-format.md, "Entries").

An entry is a fact: it is never changed, only followed by a later one. Every body carries a `type`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from vsa.model import (
    Bytes,
    DiskFigures,
    Exclusion,
    Identifier,
    IndexRef,
    Method,
    Noun,
    ObjectName,
    ObjectRef,
    Point,
    Reason,
    Sha256,
    SnapshotRef,
    Vm,
)

Slot = Annotated[int, Field(ge=0, lt=10**12)]
Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Offset = Annotated[int, Field(ge=0, lt=2**32)]


class ClientState(StrEnum):
    PRESENT = "present"
    GONE = "gone"


class Result(StrEnum):
    """How a job, or one VM of it, ended."""

    COMPLETED = "completed"
    COMPLETED_WITH_ERRORS = "completed with errors"
    FAILED = "failed"


class SeenName(Noun):
    """A name and a resource id that the VM was seen under, and when first and last."""

    name: str
    resource_id: str
    first_seen: AwareDatetime
    last_seen: AwareDatetime


class ClientEntry(Noun):
    """The whole present state of one client; the latest entry for a key replaces the ones before."""

    type: Literal["client"] = "client"
    vm: Vm
    names: tuple[SeenName, ...] = Field(min_length=1)
    first_seen: AwareDatetime
    last_seen: AwareDatetime
    state: ClientState = ClientState.PRESENT


class DiskOutcome(Noun):
    """What became of one disk; figures are absent if its stream never finished."""

    name: str
    key: str
    method: Method | None = None
    reason: Reason | None = None
    detail: str = ""
    figures: DiskFigures | None = None


class VmOutcome(Noun):
    """What became of one VM: its point's slot, or why it has none."""

    key: str
    name: str
    result: Result
    run: Identifier | None = None
    point: Slot | None = None
    error: str = ""
    disks: tuple[DiskOutcome, ...] = ()


class ReleasedBase(Noun):
    """A base snapshot that no later comparison will start from, and why."""

    base: SnapshotRef
    reason: str


class JobEntry(Noun):
    """The report of one job, failed ones too; `job` is the id of its flow run."""

    type: Literal["job"] = "job"
    job: str
    subclient: str
    method: Method
    started_at: AwareDatetime
    ended_at: AwareDatetime
    result: Result
    vms: tuple[VmOutcome, ...] = ()
    excluded: tuple[Exclusion, ...] = ()
    released: tuple[ReleasedBase, ...] = ()
    alarms: tuple[str, ...] = ()


class PointEntry(Noun):
    """A recovery point exists when this entry exists."""

    type: Literal["point"] = "point"
    point: Point


class DoubtEntry(Noun):
    """Points whose contents of one disk may be older than they say: a change list had left out a change."""

    type: Literal["doubt"] = "doubt"
    points: tuple[Slot, ...] = Field(min_length=1)
    disk_key: Identifier
    reason: str


class Damaged(Noun):
    """An object whose stored bytes fail their check: the frames at `offsets`; all of it if none is named."""

    name: ObjectName
    offsets: tuple[Offset, ...] = ()


class Harm(Noun):
    """What damage means for one disk of some points: the disk's bytes `[start, end)` that are lost.

    `offsets` says of each range which frame of the entry's object held it; none if it was no frame that was
    lost.
    """

    points: tuple[Slot, ...] = Field(min_length=1)
    disk_key: Identifier
    ranges: tuple[tuple[Bytes, Bytes], ...]
    offsets: tuple[Offset, ...] = ()

    @model_validator(mode="after")
    def _frames_match_ranges(self) -> Self:
        if self.offsets and len(self.offsets) != len(self.ranges):
            raise ValueError("offsets name one frame for each range, or none at all")
        return self


class DamageEntry(Noun):
    """Objects found damaged, and whom it concerned when it was found. Nothing new may refer to them."""

    type: Literal["damage"] = "damage"
    objects: tuple[Damaged, ...] = Field(min_length=1)
    harm: tuple[Harm, ...] = ()
    reason: str


class ForgetEntry(Noun):
    """Points that nobody wants any more. Until a doom entry gives them up they can be called back."""

    type: Literal["forget"] = "forget"
    points: tuple[Slot, ...] = Field(min_length=1)
    reason: str


class UnforgetEntry(Noun):
    """Forgotten points that are wanted again."""

    type: Literal["unforget"] = "unforget"
    points: tuple[Slot, ...] = Field(min_length=1)


class PinEntry(Noun):
    """Points that retention leaves alone while `pinned`, or no longer does."""

    type: Literal["pin"] = "pin"
    points: tuple[Slot, ...] = Field(min_length=1)
    pinned: bool = True
    reason: str = ""


class DoomEntry(Noun):
    """Runs that may no longer commit, objects about to be deleted, and forgotten points that go with them."""

    type: Literal["doom"] = "doom"
    runs: tuple[Identifier, ...] = ()
    objects: tuple[ObjectName, ...] = ()
    points: tuple[Slot, ...] = ()
    reason: str


class MovedIndex(Noun):
    """An index that has the rows of another one, which is damaged, and stands in for it."""

    name: ObjectName
    ref: IndexRef


class RelocateEntry(Noun):
    """Frames of `packs` that lie elsewhere now, as `table` says; `healed` is damage that no row leads to now.

    `indexes` names sound copies of damaged indexes.
    """

    type: Literal["relocate"] = "relocate"
    table: ObjectRef | None = None
    packs: tuple[ObjectName, ...] = ()
    indexes: tuple[MovedIndex, ...] = ()
    healed: tuple[Damaged, ...] = ()
    reason: str


class RotateEntry(Noun):
    """From here on key documents with a lower number than `key` open the media no longer and may be deleted;
    `keys/<key>` and later ones do."""

    type: Literal["rotate"] = "rotate"
    key: Annotated[int, Field(ge=1, lt=10**6)]
    reason: str = ""


EntryBody = (
    ClientEntry
    | JobEntry
    | PointEntry
    | DoubtEntry
    | DamageEntry
    | ForgetEntry
    | UnforgetEntry
    | PinEntry
    | DoomEntry
    | RelocateEntry
    | RotateEntry
)


class Entry(Noun):
    """One log slot. `prev` is the sha256 of the predecessor's bytes; of media.json's bytes in slot 0."""

    seq: Slot
    prev: Sha256
    nonce: Nonce
    time: AwareDatetime
    run: Identifier | None = None
    software: str
    body: Annotated[EntryBody, Field(discriminator="type")]
