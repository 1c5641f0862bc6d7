"""Media that has an object of every kind, and what each of its points must restore to."""

from __future__ import annotations

import datetime as dt
import hashlib
import random
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from tests.media.making import noise
from tests.restore.backups import EXTENT, NOW, Backups, Extents, Stored, image_of
from tests.subclient.builders import a_source_disk, a_vm
from vsa.errors import VsaError
from vsa.media import signs
from vsa.media.entries import Damaged, DamageEntry, Harm
from vsa.media.media import Media
from vsa.media.outcomes import StreamOutcome, keep_outcome
from vsa.media.pack import read_frames
from vsa.media.signs import Sign
from vsa.media.wrapping import WrappingKey
from vsa.model import ObjectRef, SourceDisk
from vsa.ranges import ByteRange, merge
from vsa.restore.disk import Format, restore_disk
from vsa.restore.losses import ContentsLost
from vsa.upkeep.report import Depth, VerifyReport
from vsa.upkeep.verify import verify

TODAY = dt.date(2026, 3, 4)
SIZE = 40 * EXTENT - 512
"""The last extent of these disks is short."""
OS, DATA = a_source_disk("os-disk", size=SIZE), a_source_disk("data-disk", size=SIZE)
WEB, DB = a_vm("web"), a_vm("db")

Frame = tuple[int, int]
"""Where a frame begins in its pack, and where it ends."""


def fresh(tag: str, *extents: int) -> dict[int, bytes]:
    """Contents that no other extent has."""
    return {extent: noise((tag, extent), min(EXTENT, SIZE - extent * EXTENT)) for extent in extents}


@dataclass
class Estate:
    """Two VMs with a disk each; `images` has what every point's disk holds, by slot."""

    folder: Path
    key: WrappingKey | None = None
    backups: Backups = field(init=False)
    images: dict[int, bytes] = field(default_factory=dict)
    disks: dict[int, SourceDisk] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.backups = Backups(self.folder, key=self.key)
        self._layers: dict[str, list[Extents]] = {}
        self._stored: dict[str, Stored] = {}

    @property
    def media(self) -> Media:
        """The media as somebody opens it who remembers nothing of it."""
        return Media.open(str(self.location), wrapping=self.key)

    @property
    def location(self) -> Path:
        return self.backups.location

    def back_up(self, disk: SourceDisk, extents: Extents, *, digests: bool = False) -> int:
        """A point of the disk's VM; the first is a base, those that follow are deltas."""
        vm = WEB if disk is OS else DB
        run = self.backups.run(vm)
        stored = self.backups.store(run, disk, extents, upon=self._stored.get(disk.key, Stored(())))
        self._stored[disk.key] = stored
        layers = self._layers.setdefault(disk.key, [])
        layers.append(extents)
        shards = (self._shard(run, disk),) if digests else ()
        backup = self.backups.backup(disk, stored, digests=shards, parent=self._newest(disk))
        slot = self.backups.commit(run, vm, [backup])
        self.images[slot], self.disks[slot] = image_of(SIZE, *layers), disk
        return slot

    def move(self, disk: SourceDisk, extent: int, data: bytes) -> None:
        """Say that the frame of an extent is damaged, store it anew and lead everybody there."""
        media = self.backups.media
        place = self.place_of(disk, extent)
        media.append(
            DamageEntry(
                objects=(Damaged(name=place[0], offsets=(place[1],)),), reason="so that there are moves"
            )
        )
        run = self.backups.run(WEB if disk is OS else DB)
        stored = self.backups.store(run, disk, {extent: data}, upon=self._stored[disk.key])
        self._stored[disk.key] = stored
        media.heal(stored.indexes[-1], {extent: place}, run=run, planned_on=media.view())
        backup = self.backups.backup(disk, stored, parent=self._newest(disk))
        slot = self.backups.commit(run, WEB if disk is OS else DB, [backup])
        self.images[slot], self.disks[slot] = image_of(SIZE, *self._layers[disk.key]), disk

    def _newest(self, disk: SourceDisk) -> int | None:
        return max((slot for slot, held in self.disks.items() if held is disk), default=None)

    def place_of(self, disk: SourceDisk, extent: int) -> tuple[str, int]:
        index = self.media.disk_index(self._stored[disk.key].indexes, SIZE)
        table = index.segment(0)
        assert table is not None
        return index.packs[table.pack[extent]], int(table.offset[extent])

    def say(self, run: str) -> None:
        """That the run lives, twice, and what one of its streams came to."""
        media = self.backups.media
        for number in range(2):
            signs.give(media, Sign(run=run, number=number, at=NOW, every_seconds=60))
        came_to = StreamOutcome(error="the disk went away")
        keep_outcome(media, came_to, run=run, disk_key=OS.key, attempt=UUID(int=7))

    # What is done to it

    def path(self, name: str) -> Path:
        return self.location / name

    def named(self, pattern: str) -> list[str]:
        """Names of objects, in a stable order."""
        return sorted(str(path.relative_to(self.location)) for path in self.location.glob(pattern))

    def packs_of(self, disk: SourceDisk) -> list[str]:
        """The disk's own packs, oldest first."""
        return list(self._stored[disk.key].packs)

    @property
    def records(self) -> list[str]:
        """Packs that hold no extents but records of points."""
        points = self.media.view().points.values()
        return sorted(ref.name for made in points for ref in made.point.records)

    @contextmanager
    def changed(self, name: str, data: bytes | None) -> Iterator[None]:
        """An object with other contents, or none, for the length of a block."""
        path = self.path(name)
        before = path.read_bytes()
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
        try:
            yield
        finally:
            path.write_bytes(before)

    # What must be found

    def verify(self, depth: Depth = Depth.BYTES, **options: object) -> VerifyReport:
        given = {"rng": random.Random(1), "threads": 2, "date": TODAY, **options}
        return verify(self.media, depth, scratch=self.folder / "scratch", **given)  # type: ignore[arg-type]

    def frames(self, pack: str) -> dict[Frame, bytes]:
        """The frames of a sound pack with the digest of what they hold, by the pack's own table."""
        found = read_frames(self.path(pack).read_bytes(), pack, self.media.codec)
        return {(item.offset, item.offset + item.length): item.fingerprint.digest for item in found}

    def holding(self, digests: set[bytes]) -> dict[int, list[ByteRange]]:
        """The bytes of each point's disk that have one of these digests: by what was written, not by any
        index."""
        found: dict[int, list[ByteRange]] = {}
        fingerprint = self.backups.media.codec.fingerprint
        for slot, image in self.images.items():
            pieces = (ByteRange(at, min(at + EXTENT, SIZE)) for at in range(0, SIZE, EXTENT))
            lost = [at for at in pieces if fingerprint(image[at.offset : at.end]).digest in digests]
            if lost:
                found[slot] = list(merge(lost))
        return found

    def require_nothing_wrong(
        self, told: Mapping[int, list[ByteRange]], *, slots: Collection[int] | None = None
    ) -> int:
        """Restore points (None: all): each is what it was, or refused with the ranges that were told; what is
        salvaged lacks these and no more. Returns how many were refused."""
        refused = 0
        for slot in self.images if slots is None else slots:
            image = self.images[slot]
            target = self.folder / "restored"
            backup = self.media.view().points[slot].point.disks[0]
            try:
                restore_disk(self.media, backup, target, format=Format.RAW, threads=1)
                assert target.read_bytes() == image, f"point {slot} was restored wrongly"
                assert slot not in told
            except ContentsLost as error:
                refused += 1
                assert not target.exists()
                lost = list(merge(item.range for item in error.lost))
                assert lost == told[slot]
                self._require_salvaged(slot, image)
            finally:
                target.unlink(missing_ok=True)
        return refused

    def _require_salvaged(self, slot: int, image: bytes) -> None:
        target = self.folder / "salvaged"
        backup = self.media.view().points[slot].point.disks[0]
        done = restore_disk(self.media, backup, target, format=Format.RAW, threads=1, salvage=True)
        expected = bytearray(image)
        for item in done.lost:
            expected[item.range.offset : item.range.end] = bytes(item.range.length)
        assert done.lost and target.read_bytes() == bytes(expected)
        for path in (target, self.folder / "salvaged.lost"):
            path.unlink()

    def _shard(self, run: str, disk: SourceDisk) -> ObjectRef:
        name, data = f"runs/{run}/digests/{disk.key}-{'0' * 16}.parquet", noise(run, 200)
        self.backups.media.store.create(name, [data])
        return ObjectRef(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def a_full_estate(folder: Path, key: WrappingKey | None = None) -> Estate:
    """Three points of a disk with moves between them, two of another VM's; checkpoints on the way, and what
    runs that are over and one that is open say of themselves."""
    estate = Estate(folder, key)
    estate.back_up(OS, fresh("a", *range(12), 39), digests=True)
    estate.back_up(DATA, fresh("b", *range(5, 15)))
    estate.back_up(OS, fresh("c", 0, 1, 20) | {3: None})
    estate.move(OS, 5, fresh("a", 5)[5])
    estate.backups.media.checkpoint_if_due(every=1)
    estate.back_up(DATA, fresh("d", 5, 30))
    estate.backups.media.checkpoint_if_due(every=1)
    for run in ("run-1", estate.backups.run(DB)):
        estate.say(run)
    return estate


def lost_of(report: VerifyReport) -> dict[int, list[ByteRange]]:
    """What a report says that each point has lost."""
    found: dict[int, list[ByteRange]] = {}
    for harm in (harm for finding in report.findings for harm in finding.harm):
        for slot in harm.points:
            found.setdefault(slot, []).extend(ByteRange(*item) for item in harm.ranges)
    return {slot: list(merge(ranges)) for slot, ranges in found.items()}


def harm_in_log(media: Media, slot: int) -> list[ByteRange]:
    harms: tuple[Harm, ...] = media.view().harm_of(slot)
    return list(merge(ByteRange(*item) for harm in harms for item in harm.ranges))


def refusal_of(estate: Estate) -> str:
    """Why the media cannot even be opened or its log read; empty if it can."""
    try:
        estate.media.read_anew().view()
    except VsaError as error:
        return str(error)
    return ""
