"""Which packs are worth rewriting, and what becomes of each frame in them.

A pack is measured by the frames that only it holds: of an extent that lies in several packs, one copy counts,
the one in the fullest pack. Frames of a chosen pack are led to such a copy elsewhere (folded), or copied.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vsa.media.layout import PACK_TARGET
from vsa.media.pack import FOOTER_SIZE, HEADER_SIZE, ROW_SIZE
from vsa.media.parquet import Rows
from vsa.media.scratch import scratch_errors
from vsa.media.view import View
from vsa.upkeep.frame_spool import FrameSpool, group_keys
from vsa.upkeep.objects import Objects
from vsa.upkeep.scan import FRAME

BATCH_FRAMES = 100_000
"""Frames that are moved by one moves table, about: some 100 MiB in memory while they are."""
BATCH_PACKS = 10_000
"""Packs that one `relocate` entry names at most, so that it fits into a document."""
SMALL = 4
"""A pack of less than this part of a full one is small; small ones are joined once they fill one together."""

TASK = np.dtype(
    [
        *((name, *kind[:1]) for name, kind in (FRAME.fields or {}).items()),
        ("to_pack", np.int32),
        ("to_offset", np.uint32),
        ("to_length", np.uint32),
        ("shared", np.bool_),
    ]
)
"""A frame that has to leave its pack. `to_pack` is COPY or the pack that holds the same extent; `shared` says
that other batches have copies of it to move as well."""
COPY = -1


@dataclass(frozen=True)
class RepackPlan:
    """`packs` are emptied: `copied` bytes of frames go to new packs, `folded` frames to copies that stay."""

    packs: tuple[str, ...] = ()
    size: int = 0
    copied: int = 0
    folded: int = 0
    batches: tuple[Path, ...] = field(default=(), repr=False, compare=False)

    @property
    def freed(self) -> int:
        """Bytes that the packs take now and their frames will not, about."""
        return max(0, self.size - self.copied)


def plan_repack(
    spool: FrameSpool,
    objects: Objects,
    view: View,
    *,
    threshold: float,
    folder: Path,
    pack_target: int = PACK_TARGET,
) -> RepackPlan:
    """Decide by all frames that points lead to. `folder` is a new scratch folder for what is to be moved.

    Packs below the share `threshold` of needed bytes are chosen, and small ones. A pack with a needed frame
    that the log calls damaged is left alone: what is sound in it is for whoever repairs it to say.
    """
    packs = _Packs(objects, view)
    for frames in spool.sorted():
        packs.count(frames)
    for frames in spool.sorted():
        packs.count_alone(frames)
    chosen = packs.choose(threshold, pack_target)
    with scratch_errors(folder):
        folder.mkdir()
    tasks = _Tasks(folder, packs, chosen)
    for frames in spool.sorted():
        tasks.add(frames)
    numbers = np.flatnonzero(chosen).tolist()
    return RepackPlan(
        packs=tuple(objects.names[number] for number in numbers),
        size=sum(objects.sizes[number] or 0 for number in numbers),
        copied=tasks.copied,
        folded=tasks.folded,
        batches=tuple(path for path in tasks.paths if path.exists()),
    )


class _Packs:
    """What is needed of every pack; arrays by object number, weights in bytes with the frames' table rows."""

    def __init__(self, objects: Objects, view: View) -> None:
        self.sizes = np.array([size or 0 for size in objects.sizes], np.int64)
        self.frames = np.zeros(len(objects), np.int64)
        self.sound = np.ones(len(objects), np.bool_)
        self._names = objects.names
        self._view = view
        found = (objects.find(name) for name in view.damaged)
        self._suspect = [number for number in found if number is not None]
        self._all = np.zeros(len(objects), np.int64)
        self._alone = np.zeros(len(objects), np.int64)

    def count(self, frames: Rows) -> None:
        for at in np.flatnonzero(np.isin(frames["pack"], self._suspect)).tolist():
            number, offset = int(frames["pack"][at]), int(frames["offset"][at])
            self.sound[number] &= not self._view.is_damaged(self._names[number], offset)
        np.add.at(self.frames, frames["pack"], 1)
        np.add.at(self._all, frames["pack"], _weights(frames))

    def count_alone(self, frames: Rows) -> None:
        """Count each extent once, in the pack where it is to stay."""
        ranked, leaders = self.ranked(frames, ~self.sound[frames["pack"]])
        kept = ranked[leaders]
        np.add.at(self._alone, kept["pack"], _weights(kept))

    def ranked(self, frames: Rows, last: npt.NDArray[np.bool_]) -> tuple[Rows, npt.NDArray[np.intp]]:
        """The frames with the best copy of each extent first, and where those are; copies in `last` are worse
        than others, then those in emptier packs."""
        keys = group_keys(frames)
        fullness = self.shares(self._all)[frames["pack"]]
        order = np.lexsort((frames["offset"], frames["pack"], -fullness, last, keys))
        return frames[order], np.flatnonzero(np.diff(keys[order], prepend=-1))

    def choose(self, threshold: float, pack_target: int) -> npt.NDArray[np.bool_]:
        candidates = (self._all > 0) & self.sound
        chosen = candidates & (self.shares(self._alone) < threshold)
        small = candidates & ~chosen & (self.sizes < pack_target // SMALL)
        if self._alone[small].sum() >= pack_target:
            chosen |= small
        return chosen

    def shares(self, weights: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The needed part of each pack; 1 for a pack of which every frame is."""
        shares: npt.NDArray[np.float64] = (weights + HEADER_SIZE + FOOTER_SIZE) / np.maximum(self.sizes, 1)
        return shares


class _Tasks:
    """Everything that has to leave the chosen packs, in files of one batch each."""

    def __init__(self, folder: Path, packs: _Packs, chosen: npt.NDArray[np.bool_]) -> None:
        self._packs = packs
        self._chosen = chosen
        self._batch = _batches(packs.frames, chosen)
        self._folder = folder
        self.paths = [folder / f"{number}" for number in range(int(self._batch.max(initial=-1)) + 1)]
        self.copied = 0
        self.folded = 0

    def add(self, frames: Rows) -> None:
        frames, leaders = self._packs.ranked(frames, ~self._stays(frames))
        counts = np.diff(leaders, append=len(frames))
        leader = np.repeat(leaders, counts)
        leaving = self._chosen[frames["pack"]]
        folds = self._stays(frames)[leader]
        tasks = np.zeros(len(frames), TASK)
        for name in FRAME.names or ():
            tasks[name] = frames[name]
        tasks["to_pack"] = np.where(folds, frames["pack"][leader], COPY)
        tasks["to_offset"], tasks["to_length"] = frames["offset"][leader], frames["length"][leader]
        tasks["shared"] = np.repeat(self._spread(frames, leaving, leaders), counts)
        self._save(tasks[leaving])
        copied = leaders[leaving[leaders] & ~folds[leaders]]
        self.copied += int(frames["length"][copied].sum(dtype=np.int64))
        self.folded += int(leaving.sum()) - len(copied)

    def _stays(self, frames: Rows) -> npt.NDArray[np.bool_]:
        stays: npt.NDArray[np.bool_] = ~self._chosen[frames["pack"]] & self._packs.sound[frames["pack"]]
        return stays

    def _spread(
        self, frames: Rows, leaving: npt.NDArray[np.bool_], leaders: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.bool_]:
        """For each extent, whether copies of it leave in more than one batch."""
        batch = self._batch[frames["pack"]]
        lowest = np.minimum.reduceat(np.where(leaving, batch, len(self.paths)), leaders)
        highest = np.maximum.reduceat(np.where(leaving, batch, -1), leaders)
        spread: npt.NDArray[np.bool_] = highest > lowest
        return spread

    def _save(self, tasks: Rows) -> None:
        batch = self._batch[tasks["pack"]]
        with scratch_errors(self._folder):
            for number in np.unique(batch):
                with self.paths[number].open("ab") as file:
                    tasks[batch == number].tofile(file)


def _weights(frames: Rows) -> npt.NDArray[np.int64]:
    weights: npt.NDArray[np.int64] = frames["length"].astype(np.int64) + ROW_SIZE
    return weights


def _batches(frames: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The number of each chosen pack's batch: neighbours together, within the limits; -1 for the others."""
    batch = np.full(len(frames), -1, np.int64)
    number, held, packs = 0, 0, 0
    for pack in np.flatnonzero(chosen):
        if packs and (held + frames[pack] > BATCH_FRAMES or packs >= BATCH_PACKS):
            number, held, packs = number + 1, 0, 0
        batch[pack] = number
        held, packs = held + int(frames[pack]), packs + 1
    return batch
