"""What the log can say (docs/media-format.md, "Entries").

An entry is a fact: it is never changed, only followed by a later one. Every body carries a `type`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from vsa.model import (
    DiskFigures,
    Exclusion,
    Identifier,
    Method,
    Noun,
    ObjectName,
    Point,
    Reason,
    Sha256,
    SnapshotRef,
    Vm,
)

Slot = Annotated[int, Field(ge=0, lt=10**12)]
Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


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


class DamageEntry(Noun):
    """Points whose contents of one disk are in doubt."""

    type: Literal["damage"] = "damage"
    points: tuple[Slot, ...] = Field(min_length=1)
    disk_key: Identifier
    reason: str


class DoomEntry(Noun):
    """Runs that may no longer commit, and objects of such runs that are about to be deleted."""

    type: Literal["doom"] = "doom"
    runs: tuple[Identifier, ...] = ()
    objects: tuple[ObjectName, ...] = ()
    reason: str


EntryBody = ClientEntry | JobEntry | PointEntry | DamageEntry | DoomEntry


class Entry(Noun):
    """One log slot. `prev` is the sha256 of the predecessor's bytes; of media.json's bytes in slot 0."""

    seq: Slot
    prev: Sha256
    nonce: Nonce
    time: AwareDatetime
    run: Identifier | None = None
    software: str
    body: Annotated[EntryBody, Field(discriminator="type")]
