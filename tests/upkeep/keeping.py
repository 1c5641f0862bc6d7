"""A media whose disks change, forgotten and pruned in a few words; it knows what points must restore to."""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.media.making import NOW, a_disk, a_point, an_intent, new_media, noise, read_point, write_disk
from vsa.media.entries import ForgetEntry, PinEntry, PointEntry, UnforgetEntry
from vsa.media.layout import IndexKind
from vsa.media.media import Media
from vsa.media.pack import PackHeader
from vsa.media.store import Store
from vsa.model import ProcessName
from vsa.upkeep.prune import PrunePlan, PruneReport, carry_out, plan_prune

DAY = dt.timedelta(days=1)
SELF = ProcessName(host="pruner", boot="b", id=1, started="1")
GONE = ProcessName(host="gone", boot="b", id=2, started="2")
TARGET = 16 * 4096
"""Bytes of a full pack in these tests: sixteen extents."""

Seeds = Mapping[int, object]
"""What extents hold from now on, by number: the bytes of a seed; None for zeros."""


class Keeping:
    """One media under a clock that stands still unless it is told to go on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "media"
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.now = NOW
        self.held: dict[int, dict[int, bytes]] = {}
        """What each point's disk holds."""
        self._runs = 0
        new_media(self.folder)
        self.media = self.opened()

    @classmethod
    def copied(cls, other: Keeping) -> Keeping:
        """The same, byte for byte, in another folder."""
        copy = cls.__new__(cls)
        copy.__dict__.update(other.__dict__)
        copy.held = dict(other.held)
        root = Path(tempfile.mkdtemp(dir=other.folder.parent))
        copy.folder, copy.scratch = root / "media", root / "scratch"
        copy.scratch.mkdir()
        shutil.copytree(other.folder, copy.folder)
        copy.media = copy.opened()
        return copy

    def opened(self, store: Store | None = None) -> Media:
        """The media as another process would open it, through another store if one is given."""
        if store is None:
            return Media.open(str(self.folder), write=True, clock=lambda: self.now)
        return Media(store, write=True, clock=lambda: self.now)

    def begin(self, *, process: ProcessName = SELF, media: Media | None = None) -> str:
        self._runs += 1
        run = f"run-{self._runs}"
        (media or self.media).begin_run(an_intent(run, started_at=self.now, process=process))
        return run

    def written(
        self, run: str, changes: Seeds, *, disk: str = "os", full: bool = False, media: Media | None = None
    ) -> tuple[PointEntry, dict[int, bytes]]:
        """Store a backup of the disk as it has become, upon its newest point that stands; commit nothing."""
        media = media or self.media
        view, source = media.view(), a_disk(disk)
        latest = None if full else view.latest_point_of_disk(source.key)
        parent = latest[1] if latest else None
        before = self.held[latest[0]] if latest else {}
        new = {at: None if seed is None else noise(seed) for at, seed in changes.items()}
        index = media.disk_index(parent.indexes, source.size) if parent else None
        written = write_disk(
            media,
            new,
            run=run,
            disk=source,
            scratch=self.scratch,
            kind=IndexKind.DELTA if parent else IndexKind.BASE,
            parent=index,
        )
        entry = a_point(source, written.indexes, packs=written.packs, vm=disk)
        backup = entry.point.disks[0]
        snapshot = backup.snapshot.model_copy(update={"taken_at": self.now})
        backup = backup.model_copy(update={"parent": latest[0] if latest else None, "snapshot": snapshot})
        entry = PointEntry(point=entry.point.model_copy(update={"disks": (backup,)}))
        merged = before | new
        return entry, {at: data for at, data in merged.items() if data is not None}

    def back_up(self, changes: Seeds, **how: Any) -> int:
        """A whole run; returns the point's slot."""
        run = self.begin()
        entry, holds = self.written(run, changes, **how)
        slot = self.media.append(entry, run=run)
        self.held[slot] = holds
        return slot

    def forget(self, *slots: int) -> None:
        self.media.append(ForgetEntry(points=slots, reason="test"))

    def unforget(self, *slots: int) -> None:
        self.media.append(UnforgetEntry(points=slots))

    def pin(self, *slots: int, pinned: bool = True) -> None:
        self.media.append(PinEntry(points=slots, pinned=pinned))

    def plan(
        self, *, store: Store | None = None, days: float = 0, folder: str = "prune", **how: Any
    ) -> PrunePlan:
        """Plan after so many days of grace; processes on `gone` are known to have ended."""
        scratch = self.scratch / folder
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        given = {"pack_target": TARGET, "grace": days * DAY, "has_ended": lambda process: process == GONE}
        media = self.opened(store) if store else self.media
        return plan_prune(media, now=self.now, scratch=scratch, **{**given, **how})

    def prune(self, **how: Any) -> PruneReport:
        return carry_out(self.plan(**how), process=SELF)

    def require_sound(self) -> None:
        """Every point that has not been given up restores to what its disk held."""
        media = Media.open(str(self.folder))
        for slot in media.view().points:
            assert read_point(media, slot) == self.held[slot], f"point {slot}"

    def objects(self) -> set[str]:
        return {str(p.relative_to(self.folder)) for p in (self.folder / "runs").rglob("*") if p.is_file()}

    def packs(self) -> dict[str, int]:
        """The sizes of all packs that hold extents."""
        found = {name: (self.folder / name).read_bytes() for name in self.objects() if name.endswith(".pack")}
        return {
            name: len(data) for name, data in found.items() if not PackHeader.decode(data, name).holds_records
        }
