"""The nouns of the engine: small, frozen, free of secrets, and JSON both ways.

They travel between Prefect tasks and into the media's log, so nothing here may hold disk bytes,
extent lists, SAS URLs or keys. Sizes and offsets are bytes; times are aware UTC.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

DEFAULT_EXTENT_SIZE = 64 * 1024
MAX_DISK_SIZE = 64 * 1024**4

Bytes = Annotated[int, Field(ge=0, le=MAX_DISK_SIZE)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._/-]{0,255}$")]
Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]


class Noun(BaseModel):
    """A value that never changes once made; unknown fields are refused, not dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Method(StrEnum):
    """How the changed extents of a disk are found."""

    CBT = "cbt"
    CRC = "crc"
    FULL = "full"


class Reason(StrEnum):
    """Why a disk was backed up by the method it was; recorded for every disk of every job."""

    CBT = "CBT"
    FULL_FIRST = "FULL_FIRST"
    FULL_REQUESTED = "FULL_REQUESTED"
    FULL_LINEAGE = "FULL_LINEAGE"
    FULL_RESIZED_4TB = "FULL_RESIZED_4TB"
    FULL_PARENT_DAMAGED = "FULL_PARENT_DAMAGED"
    CRC_REQUESTED = "CRC_REQUESTED"
    CRC_NO_BASE = "CRC_NO_BASE"
    CRC_BASE_GONE = "CRC_BASE_GONE"
    CRC_BASE_TOO_OLD = "CRC_BASE_TOO_OLD"
    CRC_DIFF_REFUSED = "CRC_DIFF_REFUSED"
    CRC_AUDIT_FAILED = "CRC_AUDIT_FAILED"


class DiskKind(StrEnum):
    """Which of Azure's APIs serve the disk."""

    MANAGED = "managed"
    UNMANAGED = "unmanaged"
    UNMANAGED_PREMIUM = "unmanaged-premium"


class DiskRole(StrEnum):
    OS = "os"
    DATA = "data"


class Deployment(StrEnum):
    """Azure's deployment model of a VM."""

    RESOURCE_MANAGER = "resource-manager"
    CLASSIC = "classic"


class AttachedDisk(Noun):
    """A disk as its VM names it: `source` is a managed disk's resource id or an unmanaged VHD's blob URL."""

    name: str
    role: DiskRole
    lun: int | None = None
    managed: bool
    source: str
    size_gib: int | None = None
    sku: str | None = None
    ephemeral: bool = False


class Vm(Noun):
    """A VM as discovery saw it."""

    resource_id: str
    vm_id: str
    name: str
    resource_group: str
    subscription_id: str
    region: str
    size: str
    os_type: str
    power_state: str
    tags: dict[str, str] = {}
    deployment: Deployment = Deployment.RESOURCE_MANAGER
    disks: tuple[AttachedDisk, ...] = ()

    @property
    def key(self) -> str:
        """Stable, name-safe identity of the client on the media."""
        return name_key(self.vm_id)


class SourceDisk(Noun):
    """A disk to back up, as its own API describes it.

    `unique_id` changes when a disk is replaced under the same name (a managed disk's `uniqueId`; for
    an unmanaged VHD the blob's creation time). `resource_group` is the disk's or, of a VHD, its account's.
    The last three are a managed disk's export rules, which its snapshots get too.
    """

    name: str
    role: DiskRole
    lun: int | None
    kind: DiskKind
    source: str
    unique_id: str
    size: Bytes
    sku: str
    region: str
    resource_group: str
    sector_size: int = 512
    network_access: str = ""
    disk_access: str | None = None
    access_authentication: str = ""

    @property
    def key(self) -> str:
        """Stable, name-safe identity of the disk on the media: where it lives, not what it holds."""
        return name_key(self.source)

    @property
    def place(self) -> str:
        """`os`, or the data disk's number as its VM sees it: `lun 3`."""
        return "os" if self.role is DiskRole.OS else f"lun {self.lun}"


class Exclusion(Noun):
    """Something left out, and why, in words people can read."""

    name: str
    reason: str


class SnapshotName(Noun):
    """What it takes to delete one Azure snapshot, or to end access to it.

    Managed: `id` is the snapshot's resource id. Unmanaged: `id` is the VHD's URL and `moment` the
    snapshot's DateTime, Azure's only name for it.
    """

    kind: DiskKind
    id: str
    moment: str | None = None

    def is_same(self, other: SnapshotName) -> bool:
        """Whether both mean one snapshot; Azure compares ids without regard to case."""
        return self.id.lower() == other.id.lower() and self.moment == other.moment


class SnapshotRef(SnapshotName):
    """One Azure snapshot of one disk; of a managed disk `family` is its incrementalSnapshotFamilyId."""

    disk_key: str
    family: str | None = None
    source_unique_id: str
    taken_at: AwareDatetime
    size: Bytes


class ObjectRef(Noun):
    """One object of the media, pinned by its size and digest."""

    name: ObjectName
    size: Bytes
    sha256: Sha256


class IndexRef(ObjectRef):
    """One index. Its last `footer` bytes have a digest of their own and pin its parts, so that a reader need
    not fetch the whole of it."""

    footer: Annotated[int, Field(ge=8, lt=2**32)]
    footer_sha256: Sha256


class DiskFigures(Noun):
    """What one disk's backup moved, in bytes (seconds for `elapsed`).

    `allocated`: what Azure says is allocated. `changed`: what the method calls changed (CBT: Azure's change
    list; CRC: extents that differ; full: everything allocated). `read`: bytes
    fetched, audit included. `new`: extents that differ from the previous point.
    `shared`: those of them that were stored already, for whichever disk. `stored`: bytes added to packs.
    """

    size: Bytes
    allocated: Bytes = 0
    changed: Bytes = 0
    read: Bytes = 0
    new: Bytes = 0
    shared: Bytes = 0
    stored: Bytes = 0
    audited: Bytes = 0
    elapsed: float = 0.0


class DiskBackup(Noun):
    """The outcome of one stream: where the disk's contents are, and how they came there.

    `turn` counts the disk's earlier backups on this media, `since_full` those since it was last read whole
    by a full; `parent` is the slot of the point whose indexes this one builds on. `packs` are those that this
    backup wrote: the rest of what it needs is in the pack tables of its indexes. `digests` are samples of
    `indexes`, by which later backups find what is stored; nothing but their economy depends on them.
    """

    disk: SourceDisk
    snapshot: SnapshotRef
    method: Method
    reason: Reason
    detail: str = ""
    parent: int | None = None
    turn: int = Field(default=0, ge=0)
    since_full: int = Field(default=0, ge=0)
    indexes: tuple[IndexRef, ...]
    packs: tuple[ObjectName, ...] = ()
    digests: tuple[ObjectRef, ...] = ()
    figures: DiskFigures
    proxy: str


class Point(Noun):
    """A recovery point: one VM at one time, complete for restore by itself.

    `incomplete`: a target disk failed and the subclient allows such points; `excluded` names it. `records`
    are the packs that hold all of this once more.
    """

    vm: Vm
    subclient: str
    job: str
    consistency: Literal["crash-consistent per disk"] = "crash-consistent per disk"
    disks: tuple[DiskBackup, ...] = Field(min_length=1)
    incomplete: bool = False
    excluded: tuple[Exclusion, ...] = ()
    bases: tuple[SnapshotRef, ...] = ()
    records: tuple[ObjectRef, ...] = ()


class ProcessName(Noun):
    """One process, for as long as anybody may ask about it; empty where the machine does not say.

    `machine` is the hardware's own id, `boot` changes with each start of the machine, `namespace` is that of
    process ids, `started` is the process's start in clock ticks since boot.
    """

    machine: str = ""
    host: str
    boot: str
    namespace: str = ""
    id: int = Field(ge=1, lt=2**31)
    started: str


class Intent(Noun):
    """What a run is about to create in Azure, written before it creates anything.

    `snapshots` are named `<resource group>/<name>`; blob snapshots have no name before they exist, so
    `blob_snapshots` names the VHDs. `disks` lets any machine clean up after a run that has died.
    """

    run: Identifier
    job: str
    vm_key: str
    vm_name: str
    subclient: str
    started_at: AwareDatetime
    process: ProcessName
    snapshots: tuple[str, ...] = ()
    blob_snapshots: tuple[str, ...] = ()
    staging_blobs: tuple[str, ...] = ()
    disks: tuple[SourceDisk, ...] = ()


def name_key(identity: str) -> str:
    """Twenty hex digits from an identity; Azure compares ids without regard to case, so do we."""
    return hashlib.sha256(identity.lower().encode()).hexdigest()[:20]


def utc(moment: dt.datetime) -> dt.datetime:
    """The moment in UTC; naive times are refused rather than guessed."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    return moment.astimezone(dt.UTC)
