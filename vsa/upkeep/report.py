"""What a verify found, as a value that can be printed, compared and kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum

from pydantic import Field

from vsa.media.entries import Harm, Offset, Slot
from vsa.model import Identifier, Noun, ObjectName, Sha256
from vsa.text import printable, ranges_text, size_text


class Depth(StrEnum):
    """How much is proven; each depth includes those before it."""

    LOG = "log"
    OBJECTS = "objects"
    BYTES = "bytes"
    RESTORE = "restore"

    def includes(self, other: Depth) -> bool:
        order = list(Depth)
        return order.index(self) >= order.index(other)


class Cost(StrEnum):
    """What an object that is damaged may cost."""

    RESTORE = "restore"
    REBUILD = "rebuild"
    KEY = "key"
    CLEANUP = "cleanup"
    OPENING = "opening"


_COSTS = {
    Cost.RESTORE: "harms no point",
    Cost.REBUILD: "no restore needs it; a rebuild would have to do without it",
    Cost.KEY: "no restore with another key needs it; whoever has only its key is shut out",
    Cost.CLEANUP: "no restore needs it; what its run has left is not cleaned up by itself",
    Cost.OPENING: "no restore needs it; whoever opens the media goes by it until it is deleted",
}


class Finding(Noun):
    """One object that is not what was stored.

    `offsets`: its frames that are lost; none if it is not to be relied on as a whole. `harm`: the points,
    disks and byte ranges that need what is lost; none if all that is needed of it can still be read.
    """

    name: ObjectName
    reason: str
    offsets: tuple[Offset, ...] = ()
    harm: tuple[Harm, ...] = ()
    cost: Cost = Cost.RESTORE

    @property
    def consequence(self) -> str:
        """What it means where it harms no point."""
        return "" if self.harm else _COSTS[self.cost]

    @property
    def belongs_in_log(self) -> bool:
        """Whether writers must know of it. A key document is no part of what the log tells of; to an
        intent or a checkpoint nothing refers."""
        return self.cost in (Cost.RESTORE, Cost.REBUILD)


class DiskDigest(Noun):
    """A disk of a point that was restored whole into this SHA-256."""

    point: Slot
    disk: str
    disk_key: Identifier
    sha256: Sha256


class VerifyReport(Noun):
    """What was looked at, how closely, and what is wrong.

    `error`: why the log itself cannot be trusted; then nothing else was looked at. `failures`: disks that
    were restored whole and are not what their indexes say. `remarks`: what does no point any harm. `head` is
    the log's next free slot.
    """

    media: str
    location: str
    depth: Depth
    sample: float
    head: int = 0
    points: tuple[Slot, ...] = ()
    indexes: int = 0
    packs: int = 0
    packs_read: int = 0
    frames: int = 0
    bytes_read: int = 0
    digests: tuple[DiskDigest, ...] = ()
    findings: tuple[Finding, ...] = ()
    names: Mapping[str, str] = Field(default_factory=dict)
    """What the harmed disks are called, by key."""
    remarks: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    error: str = ""

    @property
    def is_sound(self) -> bool:
        return not (self.findings or self.failures or self.error)

    @property
    def for_the_log(self) -> tuple[Finding, ...]:
        """What writers must know of."""
        return tuple(finding for finding in self.findings if finding.belongs_in_log)

    @property
    def all_restores(self) -> bool:
        """Whether nothing is damaged but what no restore needs."""
        restores = all(finding.cost != Cost.RESTORE for finding in self.findings)
        return restores and not (self.failures or self.error)

    @property
    def harmed(self) -> tuple[int, ...]:
        """The points that have lost something, ascending."""
        return tuple(sorted({slot for item in self.findings for harm in item.harm for slot in harm.points}))

    def text(self) -> str:
        """Some lines for people."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield printable(f"Media {self.media} at {self.location}, depth {self.depth}: {self._verdict()}")
        if self.error:
            yield printable(f"LOG DAMAGED: {self.error}")
        else:
            yield self._extent_of_work()
        for finding in self.findings:
            yield from self._finding_lines(finding)
        for failure in self.failures:
            yield printable(f"DOES NOT RESTORE: {failure}")
        for digest in self.digests:
            yield printable(f"Point {digest.point}, disk {digest.disk}: restores, sha256 {digest.sha256}")
        for remark in self.remarks:
            yield printable(f"Remark: {remark}")

    def _finding_lines(self, finding: Finding) -> Iterator[str]:
        """The object, then each disk of each group of points with its lost ranges."""
        yield printable(f"DAMAGED: {finding.name}: {finding.reason}")
        if finding.consequence:
            yield f"  {finding.consequence}"
        for harm in finding.harm:
            points = ", ".join(map(str, harm.points))
            name = self.names.get(harm.disk_key, harm.disk_key)
            yield printable(f"  points {points}, {name}: lost {ranges_text(harm.ranges)}")

    def _verdict(self) -> str:
        if self.is_sound:
            return "sound"
        if self.all_restores:
            return "DAMAGED, but nothing that a restore needs"
        return f"DAMAGED, {len(self.harmed)} of its points harmed" if not self.error else "DAMAGED"

    def _extent_of_work(self) -> str:
        parts = [f"{len(self.points)} points", f"{self.indexes} indexes", f"{self.packs} packs"]
        if self.packs_read:
            parts.append(f"{self.packs_read} packs read, {size_text(self.bytes_read)}, {self.frames} frames")
        share = f" (a sample of {self.sample:.1%})" if self.sample < 1 else ""
        return f"Looked at {', '.join(parts)}{share}."
