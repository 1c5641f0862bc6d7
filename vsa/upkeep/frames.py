"""The frames that points need, gathered by pack in scratch space: there may be billions of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vsa.media.index import ZEROS, PackRef
from vsa.media.parquet import Rows
from vsa.media.partial import KNOWN
from vsa.media.scratch import scratch_errors
from vsa.upkeep.contents import SharedSegment

FRAME = np.dtype(
    [
        ("pack", np.int32),
        ("offset", np.uint32),
        ("length", np.uint32),
        ("size", np.uint32),
        ("crc", np.uint32),
        ("digest", np.uint8, 32),
        ("led_by", np.int32),
    ]
)
"""Where a frame is and what proves it; `size` is its raw length, `led_by` numbers `FrameSpool.culprits`."""

_PACKS_TOGETHER = 64


Choose = Callable[[Sequence[PackRef]], Sequence[bool]]
"""Which of some packs, met for the first time, are to be looked into."""


class FrameSpool:
    """Frames by pack, numbered as they are met. In memory: the packs' references, and 64 packs' frames."""

    def __init__(self, folder: Path, choose: Choose) -> None:
        """`folder` is an existing scratch folder; a subfolder of it is used until `remove`. Of packs that
        are not chosen only such frames are kept as unreadable moves may lead elsewhere."""
        self._folder = folder / "frames"
        self._choose = choose
        self._chosen = np.zeros(0, np.bool_)
        with scratch_errors(folder):
            self._folder.mkdir()
        self.packs: list[PackRef] = []
        self.culprits: list[str] = []
        """Moves tables that cannot be read: what they may have moved is looked for where it was."""
        self._numbers: dict[str, int] = {}

    def add(self, shared: list[SharedSegment]) -> None:
        """The frames of one segment of a disk, in all its versions."""
        seen = np.zeros(0, np.int64)
        for item in shared:
            rows = self._frames(item)
            self._chosen = np.append(self._chosen, self._choose(self.packs[len(self._chosen) :])).astype(bool)
            rows = rows[self._chosen[rows["pack"]] | (rows["led_by"] != KNOWN)]
            keys = _places(rows)
            self._append(rows[~np.isin(keys, seen)])
            seen = np.union1d(seen, keys)

    @property
    def chosen_bytes(self) -> int:
        """Bytes of the packs that are to be looked into."""
        return sum(ref.size for ref, chosen in zip(self.packs, self._chosen, strict=True) if chosen)

    def by_pack(self) -> Iterator[tuple[PackRef, Rows]]:
        """Each pack that has any, with its frames: ascending by offset, each once."""
        for first in range(0, len(self.packs), _PACKS_TOGETHER):
            rows = self._load(first // _PACKS_TOGETHER)
            for number in np.unique(rows["pack"]).tolist():
                yield self.packs[number], rows[rows["pack"] == number]

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _frames(self, item: SharedSegment) -> Rows:
        table = item.segment.table
        at = np.flatnonzero(table.pack != ZEROS)
        rows = np.zeros(len(at), FRAME)
        for name in ("offset", "length", "size", "crc", "digest"):
            rows[name] = getattr(table, name)[at]
        rows["pack"] = self._numbered(item, table.pack[at])
        rows["led_by"] = self._blamed(item, item.segment.led_by[at])
        return rows

    def _numbered(self, item: SharedSegment, ordinals: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        used, back = np.unique(ordinals, return_inverse=True)
        numbers = [self._number(item.disk.pack_ref(ordinal)) for ordinal in used.tolist()]
        return np.array(numbers, np.int32)[back]

    def _number(self, ref: PackRef) -> int:
        if ref.name not in self._numbers:
            self._numbers[ref.name] = len(self.packs)
            self.packs.append(ref)
        return self._numbers[ref.name]

    def _blamed(self, item: SharedSegment, led_by: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        blamed = np.full(len(led_by), KNOWN, np.int32)
        for number in np.unique(led_by[led_by != KNOWN]).tolist():
            name = item.disk.unreadable[number].name
            if name not in self.culprits:
                self.culprits.append(name)
            blamed[led_by == number] = self.culprits.index(name)
        return blamed

    def _append(self, rows: Rows) -> None:
        part = rows["pack"] // _PACKS_TOGETHER
        for number in np.unique(part).tolist():
            with scratch_errors(self._folder), self._path(number).open("ab") as file:
                file.write(rows[part == number].tobytes())

    def _load(self, part: int) -> Rows:
        path = self._path(part)
        with scratch_errors(self._folder):
            data = path.read_bytes() if path.exists() else b""
        rows = np.frombuffer(data, FRAME)
        rows = rows[np.lexsort((rows["offset"], rows["pack"]))]
        same = np.zeros(len(rows), np.bool_)
        plain = rows.view(np.uint8).reshape(len(rows), FRAME.itemsize)
        same[1:] = (plain[1:] == plain[:-1]).all(axis=1)
        return rows[~same]

    def _path(self, part: int) -> Path:
        return self._folder / f"{part}.rows"


def _places(rows: Rows) -> npt.NDArray[np.int64]:
    """Pack and offset of each frame as one number."""
    found: npt.NDArray[np.int64] = (rows["pack"].astype(np.int64) << 32) | rows["offset"]
    return found
