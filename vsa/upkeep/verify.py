"""Verify: prove, at a stated depth, that recovery points can be restored (docs/operations.md, "Verifying").

What is looked at follows from the log and the indexes, never from a listing, which may leave things out. A
verify reads only; `record_damage` puts what it found into the log.
"""

from __future__ import annotations

import datetime as dt
import random
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from vsa.errors import BadRequest, MediaDamaged
from vsa.media import layout
from vsa.media.index import PackRef
from vsa.media.media import Media
from vsa.media.parquet import Rows
from vsa.media.partial import KNOWN
from vsa.media.pinned import require_stored
from vsa.media.view import WHOLE, View
from vsa.model import ObjectRef
from vsa.progress import SILENT, Progress
from vsa.threads import Threads
from vsa.upkeep.beside import Beside
from vsa.upkeep.contents import DiskVersion, disks, segments
from vsa.upkeep.drill import Drill
from vsa.upkeep.frames import FrameSpool
from vsa.upkeep.harm import Losses, assess
from vsa.upkeep.packs import CheckedPack, check_pack, misfit
from vsa.upkeep.report import Depth, DiskDigest, Finding, VerifyReport
from vsa.upkeep.sampling import Sample


def verify(
    media: Media,
    depth: Depth,
    *,
    scratch: Path,
    date: dt.date,
    points: Collection[int] | None = None,
    sample: float = 1.0,
    threads: int = 4,
    progress: Progress = SILENT,
    rng: random.Random | None = None,
) -> VerifyReport:
    """Look at these points (None: all that nobody has forgotten) and say what is wrong.

    `sample` is the share of packs that are read at depth `bytes`, and of points that are restored at depth
    `restore`; `date` turns the rotating half of it. Damage is named for every point of the media that needs
    what is lost, chosen or not. `scratch` is an existing folder. BadRequest for a point that does not exist.
    """
    if not 0 < sample <= 1:
        raise BadRequest(f"a sample of {sample:.1%}: expected more than 0 % and at most 100 %")
    chosen = Sample.on(date, sample, rng or random.SystemRandom())
    with Threads(threads, "verify") as pool:
        return _Verification(media, depth, chosen, scratch, threads, pool, progress).run(points)


class _Verification:
    """One verify as it proceeds; `_wrong` has the reason for each object that is not what was stored."""

    def __init__(
        self,
        media: Media,
        depth: Depth,
        sample: Sample,
        scratch: Path,
        threads: int,
        pool: Threads,
        progress: Progress,
    ) -> None:
        self._media = media
        self._depth = depth
        self._sample = sample
        self._scratch = scratch
        self._threads = threads
        self._pool = pool
        self._progress = progress
        self._wrong: dict[str, str] = {}
        self._whole: set[str] = set()
        self._lost: dict[str, set[int]] = {}
        """Offsets of the frames that do not prove themselves, by pack."""
        self._suspects: set[str] = set()
        self._digests: list[DiskDigest] = []
        self._failures: list[str] = []
        self._remarks: list[str] = []
        self._indexes: set[str] = set()
        self._names: dict[str, str] = {}
        self._counts = {"packs": 0, "packs_read": 0, "frames": 0, "bytes_read": 0}

    def run(self, points: Collection[int] | None) -> VerifyReport:
        beside = Beside(self._media, self._depth, self._sample, self._pool)
        try:
            read = self._media.read_anew()
            view = read.view()
        except MediaDamaged as error:
            return self._report(error=str(error))
        slots = _chosen(view, points)
        if self._depth.includes(Depth.RESTORE):
            self._restore(view, slots)
        if self._depth.includes(Depth.OBJECTS):
            self._look_at_objects(view, slots)
        beside.look(view, slots)
        # Others may have been at work, a prune among them: what is wrong is judged by the log as it is now.
        now = read.view()
        others, remarks = beside.judged(now)
        findings = (*self._findings(now), *others)
        self._remarks += remarks
        return self._report(head=view.head, points=slots, findings=findings, names=self._names)

    def _report(self, **known: object) -> VerifyReport:
        return VerifyReport.model_validate(
            {
                "media": self._media.id,
                "location": self._media.location,
                "depth": self._depth,
                "sample": self._sample.share,
                "indexes": len(self._indexes),
                "digests": tuple(self._digests),
                "failures": tuple(self._failures),
                "remarks": tuple(self._remarks),
                **self._counts,
                **known,
            }
        )

    def _restore(self, view: View, slots: Sequence[int]) -> None:
        for slot in slots:
            if not self._sample.has(f"point {slot}"):
                continue
            for backup in view.points[slot].point.disks:
                drill = Drill(self._media, backup, view)
                digest = drill.run(threads=self._threads, progress=self._progress)
                # Which frames these are, and whom else they harm, is found out with the objects.
                self._suspects |= {lost.object for lost in drill.lost}
                if drill.complaint:
                    self._failures.append(f"point {slot}, disk {backup.disk.name}: {drill.complaint}")
                if digest:
                    name, key = backup.disk.name, backup.disk.key
                    self._digests.append(DiskDigest(point=slot, disk=name, disk_key=key, sha256=digest))

    def _look_at_objects(self, view: View, slots: Sequence[int]) -> None:
        spool = FrameSpool(self._scratch, self._choose)
        try:
            for _, versions in disks(view, slots):
                self._prove_indexes(view, versions)
                for shared in segments(self._media, view, versions):
                    spool.add(shared)
                    for bad in (bad for item in shared for bad in item.disk.unreadable):
                        self._note(bad.name, bad.reason, whole=True)
            self._read_packs(spool)
        finally:
            spool.remove()

    def _prove_indexes(self, view: View, versions: Sequence[DiskVersion]) -> None:
        """Every byte of every index; a digests shard too, which is a cache and harms nobody."""
        sound = view.sound_indexes()
        refs = {ref.name: sound.get(ref.name, ref) for item in versions for ref in item.backup.indexes}
        new = [ref for name, ref in refs.items() if name not in self._indexes]
        self._indexes |= refs.keys()
        for ref, reason in zip(new, self._pool.map(self._unproven, new), strict=True):
            if reason:
                self._note(ref.name, reason, whole=True)
        shards = [shard for item in versions for shard in item.backup.digests]
        shards = [shard for shard in shards if shard.name not in view.doomed]
        self._remarks += [reason for reason in self._pool.map(self._unproven, shards) if reason]

    def _unproven(self, ref: ObjectRef) -> str:
        try:
            require_stored(self._media.store, ref)
        except MediaDamaged as error:
            return str(error)
        return ""

    def _choose(self, packs: Sequence[PackRef]) -> list[bool]:
        """Which packs are read: a sample at depth `bytes`; at any depth those that cannot be sound."""
        self._counts["packs"] += len(packs)
        misfits = self._pool.map(lambda ref: misfit(self._media.store, ref), packs)
        return [bool(reason) or self._is_wanted(ref) for ref, reason in zip(packs, misfits, strict=True)]

    def _is_wanted(self, ref: PackRef) -> bool:
        if ref.name in self._suspects:
            return True
        return self._depth.includes(Depth.BYTES) and self._sample.has(ref.name)

    def _read_packs(self, spool: FrameSpool) -> None:
        codec = self._media.codec

        def check(ref: PackRef, frames: Rows) -> tuple[CheckedPack, Rows]:
            done = check_pack(self._media.store, ref, frames, codec)
            self._progress.advanced(done.read)
            return done, frames

        self._progress.started("packs", spool.chosen_bytes)
        running: deque[Future[tuple[CheckedPack, Rows]]] = deque()
        try:
            for ref, frames in spool.by_pack():
                running.append(self._pool.submit(check, ref, frames))
                if len(running) > self._threads:
                    self._judge(*running.popleft().result(), spool.culprits)
            while running:
                self._judge(*running.popleft().result(), spool.culprits)
        finally:
            for left in running:
                left.cancel()
            self._progress.finished()

    def _judge(self, done: CheckedPack, frames: Rows, culprits: Sequence[str]) -> None:
        self._counts["packs_read"] += 1
        self._counts["frames"] += done.proven
        self._counts["bytes_read"] += done.read
        lost = frames[done.lost]
        own = lost[lost["led_by"] == KNOWN]
        # A pack that misses nothing but what unreadable moves may lead elsewhere is not to blame.
        if done.reason and (len(own) or not len(lost)):
            self._note(done.ref.name, done.reason, whole=done.whole)
        if len(lost):
            self._lost.setdefault(done.ref.name, set()).update(lost["offset"].tolist())

    def _note(self, name: str, reason: str, *, whole: bool) -> None:
        self._wrong.setdefault(name, reason)
        if whole:
            self._whole.add(name)

    def _findings(self, view: View) -> tuple[Finding, ...]:
        """Everything wrong, with the harm that it does under this view."""
        if not self._wrong:
            return ()
        losses = assess(self._media, view, self._lost, self._wrong.keys())
        self._names = losses.names
        for name in losses.harm.keys() - self._wrong.keys():
            self._note(name, losses.reasons.get(name, "it is unreadable"), whole=True)
        return tuple(self._assessed(view, losses))

    def _assessed(self, view: View, losses: Losses) -> Iterator[Finding]:
        for name, reason in sorted(self._wrong.items()):
            harm = tuple(losses.harm.get(name, ()))
            if not harm and (why := self._why_of_no_concern(name, view, losses)):
                self._remarks.append(f"{name}: {why}: {reason}")
                continue
            offsets = tuple(sorted({offset for item in harm for offset in item.offsets}))
            # Where no frame is lost something is wrong between them: it is not to be relied on as a whole.
            whole = name in self._whole or not offsets
            yield Finding(name=name, reason=reason, offsets=() if whole else offsets, harm=harm)

    def _why_of_no_concern(self, name: str, view: View, losses: Losses) -> str:
        """Why what is wrong with an object, and harms nobody, is no news; empty if it is."""
        if name in view.sound_indexes():
            return "a copy stands in for it"
        lost = name in self._lost and name not in self._whole
        if name in view.doomed or (layout.is_pack(name) and (lost or name not in losses.needed)):
            return "no point needs it any more"
        if view.damaged.get(name) == WHOLE or (name in view.damaged and name not in self._whole):
            return "known, and no point needs what is wrong there"
        return ""


def _chosen(view: View, points: Iterable[int] | None) -> tuple[int, ...]:
    if points is None:
        return tuple(made.slot for made in view.live)
    if unknown := sorted(set(points) - view.points.keys()):
        raise BadRequest(f"there is no recovery point {unknown[0]}: `vsa points` lists those of this media")
    return tuple(sorted(set(points)))
