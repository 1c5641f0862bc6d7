"""Records: what a point and its new indexes say, once more, in packs (docs/media-format.md, "Records").

They cost a few bytes for each extent stored, and make log and indexes replaceable: `vsa rebuild` needs
nothing but packs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, ValidationError

from vsa.errors import MediaDamaged
from vsa.media import layout, pack
from vsa.media.coding import PackCodec
from vsa.media.pack import PackBuilder, PackHeader, decode_frame, read_frames
from vsa.media.store import Buffer, Store
from vsa.model import Identifier, IndexRef, Noun, ObjectRef, Point
from vsa.ranges import MIB, ByteRange

PIECE = 4 * MIB
"""Bytes of an index in one frame."""
FRAMES = 16
"""Frames of indexes in one record pack."""


class RecordHead(Noun):
    """The first frame of a record pack. `set` is the same in all packs of one copy, and in no others; the
    further frames of all of them, in order, are the bytes of `indexes`, joined."""

    format: Literal[1] = 1
    run: Identifier
    set: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    piece: Annotated[int, Field(ge=0, lt=10**6)]
    pieces: Annotated[int, Field(ge=1, le=10**6)]
    indexes: tuple[IndexRef, ...]
    point: Point


class Record(NamedTuple):
    head: RecordHead
    data: bytes


class RecordWriter:
    """Stores the records of one run."""

    def __init__(self, store: Store, codec: PackCodec, *, random: Callable[[int], bytes]) -> None:
        self._store = store
        self._codec = codec
        self._random = random

    def store(self, run: str, point: Point) -> tuple[ObjectRef, ...]:
        """Copy the point and the indexes that the run wrote; the packs."""
        named = dict.fromkeys(ref for disk in point.disks for ref in disk.indexes)
        indexes = tuple(ref for ref in named if layout.run_of(ref.name) == run)
        return self._store_set(run, run, indexes, point)

    def store_copies(self, run: str, of: RecordHead, copies: Sequence[IndexRef]) -> tuple[ObjectRef, ...]:
        """Copy copies of indexes that `run` has stored, as of the run that wrote the indexes."""
        return self._store_set(run, of.run, tuple(copies), of.point)

    def _store_set(
        self, below: str, run: str, indexes: tuple[IndexRef, ...], point: Point
    ) -> tuple[ObjectRef, ...]:
        """All packs of one copy, among the objects of the run `below`."""
        places = [(ref.name, at) for ref in indexes for at in _pieces(ref.size)]
        groups = [places[at : at + FRAMES] for at in range(0, len(places), FRAMES)] or [[]]
        set_id = self._random(16).hex()
        refs: list[ObjectRef] = []
        for piece, group in enumerate(groups):
            head = RecordHead(
                run=run, set=set_id, piece=piece, pieces=len(groups), indexes=indexes, point=point
            )
            frames = [memoryview(self._store.read(name, at)) for name, at in group]
            refs.append(self._store_pack(below, head, frames))
        return tuple(refs)

    def _store_pack(self, below: str, head: RecordHead, frames: Sequence[memoryview]) -> ObjectRef:
        contents = [memoryview(head.model_dump_json().encode()), *frames]
        pack_id = self._random(16)
        codec = self._codec
        room = sum(len(data) + codec.overhead for data in contents)
        builder = PackBuilder(codec, pack_id, target=room + 1, flags=pack.RECORDS)
        for data in contents:
            builder.add(codec.compress(data), len(data), codec.fingerprint(data))
        name = layout.pack(below, pack_id)
        closed = builder.close()
        self._store.create(name, [closed.data])
        return ObjectRef(name=name, size=len(closed.data), sha256=closed.sha256)


def _pieces(size: int) -> Iterator[ByteRange]:
    return (ByteRange(at, min(at + PIECE, size)) for at in range(0, size, PIECE))


def read_record(data: Buffer, name: str, codec: PackCodec) -> Record | None:
    """What a whole pack records; None if it holds extents. MediaDamaged if a frame fails its check."""
    if not PackHeader.decode(data, name).holds_records:
        return None
    view, seal = memoryview(data), codec.seal_of(name)
    frames = read_frames(data, name, codec)
    if not frames or max(frame.raw_length for frame in frames) > layout.MAX_DOCUMENT_SIZE:
        raise MediaDamaged(f"{name}: a record pack of {len(frames)} frames, or of one too large")
    contents = [
        bytes(decode_frame(view[frame.offset : frame.offset + frame.length], frame, codec, seal, name))
        for frame in frames
    ]
    try:
        head = RecordHead.model_validate_json(contents[0], strict=True)
    except ValidationError as error:
        raise MediaDamaged(f"{name} does not say what it records: {error}") from error
    return Record(head, b"".join(contents[1:]))
