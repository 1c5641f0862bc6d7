"""Moving frames by hand, as repacking, folding and healing do."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vsa.media import layout
from vsa.media.entries import RelocateEntry
from vsa.media.index import PackRef
from vsa.media.media import Media
from vsa.media.moves import MOVE, MovesDescription, store_moves
from vsa.media.pack import Frame, PackBuilder, read_frames
from vsa.media.view import View

Place = tuple[PackRef, Frame]


def packs_of(folder: Path, run: str, *, records: bool = False) -> list[Path]:
    """The packs of a run that hold extents, or those that hold records."""
    return [
        path
        for path in sorted((folder / f"runs/{run}/packs").iterdir())
        if bool(path.read_bytes()[10] & 2) is records
    ]


def places_in(media: Media, path: Path) -> list[Place]:
    """Every frame of a pack, with the pack's reference."""
    data = path.read_bytes()
    name = str(path.relative_to(media.location))
    ref = PackRef(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    return [(ref, frame) for frame in read_frames(data, name, media.codec)]


def copied(media: Media, places: Iterable[Place], *, run: str) -> list[Place]:
    """The same frames stored once more, in a pack of `run`."""
    pack_id = os.urandom(16)
    builder = PackBuilder(media.codec, pack_id)
    frames = []
    for ref, frame in places:
        data = media.store.read(ref.name)
        stored = media.codec.seal_of(ref.name).open_frame(
            data[frame.offset : frame.offset + frame.length],
            offset=frame.offset,
            raw_length=frame.raw_length,
            where=ref.name,
        )
        frames.append(builder.add(stored, frame.raw_length, frame.fingerprint))
    closed = builder.close()
    new = PackRef(name=layout.pack(run, pack_id), size=len(closed.data), sha256=closed.sha256)
    media.store.create(new.name, [closed.data])
    return [(new, frame) for frame in frames]


def moved(media: Media, old: list[Place], new: list[Place], *, run: str) -> RelocateEntry:
    """The entry that leads each old place to the new one beside it; its table is stored."""
    sources = tuple(dict.fromkeys(ref.name for ref, _ in old))
    targets = tuple(dict.fromkeys(ref for ref, _ in new))
    rows = np.zeros(len(old), MOVE)
    for at, ((source, frame), (target, place)) in enumerate(zip(old, new, strict=True)):
        rows[at] = (
            sources.index(source.name),
            frame.offset,
            targets.index(target),
            place.offset,
            place.length,
        )
    about = MovesDescription(media=media.id, run=run, sources=sources, packs=targets)
    table = store_moves(media.store, layout.moves(run, os.urandom(8)), about, rows)
    return RelocateEntry(table=table, packs=sources, reason="moved")


def repack(media: Media, path: Path, *, run: str, planned_on: View | None = None) -> list[Place]:
    """Move all frames of a pack into a new one."""
    old = places_in(media, path)
    new = copied(media, old, run=run)
    media.relocate(moved(media, old, new, run=run), run=run, planned_on=planned_on or media.view())
    return new
