"""Who shares extents on a small media, heals what is damaged there, and finds damage: the streams of a job by
their own code, without Azure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence, Set
from pathlib import Path

from tests.faults.small_media import LATER, Contents
from tests.media.making import EXTENT, NOW, a_disk, a_point, an_intent, flip_bit, noise, read_disk
from tests.media.moving import packs_of, places_in
from vsa.errors import MediaConflict, MediaDamaged, RunStopped, TryAgainLater, VsaError
from vsa.media.disk_writer import samples_of
from vsa.media.index import Offer
from vsa.media.layout import IndexKind
from vsa.media.media import Media
from vsa.media.sharing import Sharing
from vsa.media.store import Store
from vsa.transfer.healing import Healing
from vsa.upkeep.record import record_damage
from vsa.upkeep.report import Depth, Finding, VerifyReport

ATTEMPTS = 5
WANTED = (
    *(noise(("gone", at)) for at in range(4)),
    noise((0, 0)),
    noise((1, 2)),
    noise((3, 3)),
    noise("all"),
)
"""What every sharer has on its disks: extents of packs of every age, and one that only sharers have."""


class Stream:
    """One disk of a job on its way to the media, on the newest point of that disk if there is one."""

    def __init__(
        self,
        media: Media,
        run: str,
        disk: str,
        *,
        sharing: Sharing,
        held: dict[str, Contents],
        scratch: Path,
        started_at: dt.datetime,
    ) -> None:
        self.run, self.disk, self.media = run, a_disk(disk), media
        media.begin_run(an_intent(run, started_at=started_at))
        view = media.view()
        latest = view.latest_point_of_disk(self.disk.key)
        self.parent = latest[0] if latest else None
        self._backup = latest[1] if latest else None
        before = held[view.points[latest[0]].run] if latest else {}
        older = media.disk_index(self._backup.indexes, self.disk.size) if self._backup else None
        changes = dict(enumerate([*WANTED, noise(run)], 20))
        self._healing = Healing(older, view.damaged)
        self.healed = 0
        table = older.segment(0) if older else None
        for at in self._healing.positions(table):
            if table and at not in changes:
                changes[at] = before[at]
                self._healing.stored_again(table, at, EXTENT)
                self.healed += 1
        self.changes = sorted(changes.items())
        # Said beforehand: a commit whose answer is lost may be one all the same.
        held[run] = before | changes
        self._writer = media.disk_writer(
            run=run,
            disk_key=self.disk.key,
            disk_size=self.disk.size,
            kind=IndexKind.DELTA if latest else IndexKind.BASE,
            scratch=scratch,
            parent=older,
            sharing=sharing.of(disk),
        )

    def put(self, extent: int, data: bytes) -> None:
        self._writer.put(extent, memoryview(data), *self._writer.fingerprint(data))

    def commit(self) -> int:
        """How many bytes its point shares with others."""
        self._writer.end_segment(0)
        written = self._writer.finish()
        self._healing.commit(written.index, run=self.run, media=self.media)
        digests = samples_of(written, self._backup.digests if self._backup else ())
        entry = a_point(
            self.disk,
            written.indexes,
            packs=written.packs,
            digests=digests,
            parent=self.parent,
            vm=self.disk.name,
        )
        self.media.append(entry, run=self.run)
        return written.shared


class Sharers:
    """A process with a stream for each of some disks, every one in a run of its own, which share what they
    store.

    They are given their extents in turn, so each refers to packs that another still fills; the last one is
    the first to commit. Who is refused begins a new run.
    """

    def __init__(
        self,
        name: str,
        disks: Sequence[str],
        held: dict[str, Contents],
        scratch: Path,
        *,
        slow: bool = False,
    ) -> None:
        self.name = name
        self.disks = disks
        self.held = held
        self.scratch = scratch
        self.started_at = NOW if slow else LATER
        self.shared = self.healed = 0
        """Bytes and frames."""

    def __call__(self, store: Store) -> None:
        left, refused = list(self.disks), None
        media = Media(store, write=True)
        sharing = media.sharing(Offer.MEDIA)
        assert sharing is not None
        for attempt in range(ATTEMPTS):
            left, refused = self._attempt(media, sharing, left, attempt)
            if refused is None:
                return
        assert refused is not None
        raise refused

    def _attempt(
        self, media: Media, sharing: Sharing, disks: Sequence[str], attempt: int
    ) -> tuple[list[str], VsaError | None]:
        """The disks that have no new point, and why the last of them has none."""
        left, refused, doomed = list(disks), None, len(media.view().doomed)
        try:
            streams = [self._stream(media, sharing, disk, attempt) for disk in disks]
        except (MediaConflict, TryAgainLater, MediaDamaged) as error:
            _require_reason(error, media, doomed)
            return left, error
        for turn in range(max(len(stream.changes) for stream in streams)):
            for stream in streams:
                for change in stream.changes[turn : turn + 1]:
                    stream.put(*change)
        for stream in reversed(streams):
            try:
                self.shared += stream.commit()
                self.healed += stream.healed
                left.remove(stream.disk.name)
            except (MediaConflict, TryAgainLater, MediaDamaged, RunStopped) as error:
                _require_reason(error, media, doomed)
                refused = error
        return left, refused

    def _stream(self, media: Media, sharing: Sharing, disk: str, attempt: int) -> Stream:
        return Stream(
            media,
            f"{self.name}-{disk}-{attempt}",
            disk,
            sharing=sharing,
            held=self.held,
            scratch=self.scratch,
            started_at=self.started_at,
        )


def _require_reason(error: VsaError, media: Media, doomed: int) -> None:
    """Nobody misses anything on the media unless somebody has doomed something meanwhile."""
    if isinstance(error, MediaDamaged) and len(media.view().doomed) == doomed:
        raise AssertionError(f"refused without a reason: {error}") from error


class Damage:
    """A frame of `gone` goes bad, as time has it, and somebody finds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (path,) = packs_of(folder, "gone")
        _, frame = places_in(Media.open(str(folder)), path)[0]
        self.pack, self.offset = path, frame.offset
        self.bit = 8 * (frame.offset + frame.length // 2)

    def __call__(self, store: Store) -> None:
        media = Media(store, write=True)
        head = media.view().head
        if self.pack.exists():
            flip_bit(self.pack, self.bit)
        name = str(self.pack.relative_to(self.folder))
        finding = Finding(name=name, reason="a flipped bit", offsets=(self.offset,))
        record_damage(media, _report(media, head, finding))


def _report(media: Media, head: int, finding: Finding) -> VerifyReport:
    return VerifyReport(
        media=media.id,
        location=media.location,
        depth=Depth.BYTES,
        sample=1.0,
        head=head,
        findings=(finding,),
    )


def excused(media: Media) -> Set[int]:
    """The points that may lack what went bad: those from before it was found, and what builds on them; none
    once it is healed."""
    view = media.view()
    if any(relocation.entry.healed for relocation in view.relocations):
        return set()
    found = min((damage.slot for damage in view.damages), default=view.head)
    lacking: set[int] = set()
    for slot, made in sorted(view.points.items()):
        if slot < found or made.point.disks[0].parent in lacking:
            lacking.add(slot)
    return lacking


def require_points(media: Media, held: dict[str, Contents], *, lacking: Set[int]) -> None:
    """Every point that was not given up holds what its run stored; those of `lacking` but for the first
    extent of `gone`, of which a restore says that it is damaged."""
    for slot, made in media.view().points.items():
        (backup,) = made.point.disks
        wanted = held[made.run]
        try:
            assert read_disk(media, backup.indexes, backup.disk.size) == wanted, f"{made.run} in slot {slot}"
        except MediaDamaged:
            assert slot in lacking, f"{made.run} in slot {slot}"
            assert _readable(media, slot) == {at: data for at, data in wanted.items() if data != WANTED[0]}


def _readable(media: Media, slot: int) -> Contents:
    (backup,) = media.view().points[slot].point.disks
    index = media.disk_index(backup.indexes, backup.disk.size)
    table = index.segment(0)
    assert table is not None
    found: Contents = {}
    for at in range(len(table.pack)):
        if table.pack[at] >= 0:
            try:
                found |= media.extent_reader().read(index, table, [at])
            except MediaDamaged:
                continue
    return found
