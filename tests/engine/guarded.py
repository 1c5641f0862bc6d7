"""A VM that was backed up once, among snapshots of others; what must hold whatever happens to it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.engine.canaries import Canaries
from tests.engine.world import MANAGED, MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from vsa.media.entries import JobEntry, Result
from vsa.model import Reason, SourceDisk

RUN = "c" * 16


class Guarded:
    """The VM `vm` of a world, with an OS disk and a data disk; both have changed since their backup.

    `blobs` are the snapshots of VHDs that others have made.
    """

    def __init__(self, world: World, kind: str = MANAGED, *, size: int = MIB, alone: bool = True) -> None:
        self.world = world
        self.vm = world.add_vm({"os": random_bytes(MIB, "os"), "data": random_bytes(size, "data")}, kind=kind)
        if not alone:
            world.add_vm({"stays": random_bytes(MIB, "stays")}, kind=kind)
        assert world.back_up().result is Result.COMPLETED
        self._managed = [Canaries(world, self.disk("data"), RUN)] if kind == MANAGED else []
        self.blobs = set() if kind == MANAGED else self._blob_canaries()
        world.strangers |= self.blobs.union(*(canaries.everywhere for canaries in self._managed))
        world.write("os", 0, random_bytes(512, "changed"))
        world.write("data", size // 1024 * 512, random_bytes(512, "changed"))

    def disk(self, name: str) -> SourceDisk:
        """The disk as its first point has it."""
        made = self.world.media.view().points.values()
        disks = (backup.disk for committed in made for backup in committed.point.disks)
        return next(disk for disk in disks if disk.name == self.world.named(name))

    def _blob_canaries(self) -> set[str]:
        """Snapshots of the data disk's VHD with none of our marks, or with all but one."""
        disk, world = self.disk("data"), self.world
        marks = {"vsa_media": world.media.id, "vsa_run": RUN, "vsa_disk": disk.key}
        theirs = [{}, marks | {"vsa_media": "another-media"}, marks | {"vsa_disk": "another-disk"}]
        made = set()
        for metadata in theirs:
            world.control.advance_clock(601)
            made.add(str(world.vhd("data").create_snapshot(metadata=metadata)["snapshot"]))
        return made

    def require_untouched(self) -> None:
        """What others have in Azure is still there and, of ours, the bases and nothing else."""
        for canaries in self._managed:
            beside = f"/{self.world.group}/"
            canaries.require_alone(*(base for base in self.world.bases if beside in base))
        if self.blobs:
            accounts = {self.world.account(kind) for kind in (STANDARD_VHD, PREMIUM_VHD)}
            blobs = self.world.control.inventory()["blobs"]
            there = {row["snapshot"] for row in blobs if row["snapshot"] and row["account"] in accounts}
            assert there - self.world.standing.things == self.blobs | self.world.bases

    def require_good(self, reasons: Mapping[str, Reason] | None = None, **options: object) -> JobEntry:
        """The next job is an ordinary one and reads its disks for these `reasons`, by default all by CBT;
        every point ever made restores, and nothing is left."""
        report = self.world.back_up(**options)
        assert report.result is Result.COMPLETED, report
        expected = dict.fromkeys(self.world.disks(report), Reason.CBT) | dict(reasons or {})
        assert self.world.reasons(report) == expected
        self.world.require_sound()
        self.require_untouched()
        return report


def lost(report: JobEntry, vm: str) -> str:
    """Why a VM has no point; it must have none."""
    (outcome,) = [outcome for outcome in report.vms if outcome.name == vm]
    assert (outcome.point, outcome.result) == (None, Result.FAILED), outcome
    return outcome.error
