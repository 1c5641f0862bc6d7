"""The media format and its API; `vsa.media.media` is the way in."""

from vsa.media.entries import (
    ClientEntry,
    ClientState,
    DamageEntry,
    DiskOutcome,
    DoomEntry,
    Entry,
    EntryBody,
    JobEntry,
    PointEntry,
    ReleasedBase,
    Result,
    SeenName,
    VmOutcome,
)
from vsa.media.layout import SEGMENT, IndexKind
from vsa.media.media import Media
from vsa.media.view import CommittedPoint, Doubt, ReportedJob, View

__all__ = [
    "SEGMENT",
    "ClientEntry",
    "ClientState",
    "CommittedPoint",
    "DamageEntry",
    "DiskOutcome",
    "DoomEntry",
    "Doubt",
    "Entry",
    "EntryBody",
    "IndexKind",
    "JobEntry",
    "Media",
    "PointEntry",
    "ReleasedBase",
    "ReportedJob",
    "Result",
    "SeenName",
    "View",
    "VmOutcome",
]
