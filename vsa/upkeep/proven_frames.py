"""Stored frames, read from packs wherever they lie and proven one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vsa.errors import MediaDamaged
from vsa.media.coding import PackCodec, PackSeal
from vsa.media.extent_reader import BATCH, GAP
from vsa.media.frames import Fingerprint
from vsa.media.store import Buffer, Store
from vsa.ranges import ByteRange


class Wanted(NamedTuple):
    """A frame to read: where it lies, what it must decode to, and the caller's number for it."""

    pack: str
    offset: int
    length: int
    size: int
    fingerprint: Fingerprint
    at: int


def proven_frames(
    store: Store, codec: PackCodec, wanted: Sequence[Wanted]
) -> Iterator[tuple[Wanted, Buffer | None]]:
    """Each frame as it would be added to another pack, in the order of packs and offsets; None if it is not
    what it must be."""
    for pack, at, inside in _requests(wanted):
        try:
            data = memoryview(store.read(pack, at))
        except MediaDamaged:
            yield from ((item, None) for item in inside)
            continue
        seal = codec.seal_of(pack)
        for item in inside:
            start = item.offset - at.offset
            yield item, _proven(data[start : start + item.length], item, codec, seal)


def _proven(stored: memoryview, item: Wanted, codec: PackCodec, seal: PackSeal) -> Buffer | None:
    try:
        opened = seal.open_frame(stored, offset=item.offset, raw_length=item.size, where=item.pack)
        codec.decode(opened, item.size, item.fingerprint, item.pack)
    except MediaDamaged:
        return None
    return opened


def _requests(wanted: Sequence[Wanted]) -> Iterator[tuple[str, ByteRange, list[Wanted]]]:
    """Neighbours in one request."""
    waiting = deque(sorted(wanted, key=lambda item: (item.pack, item.offset)))
    while waiting:
        first = waiting.popleft()
        end, inside = first.offset + first.length, [first]
        while waiting and _joins(first, end, waiting[0]):
            inside.append(waiting.popleft())
            end = max(end, inside[-1].offset + inside[-1].length)
        yield first.pack, ByteRange(first.offset, end), inside


def _joins(first: Wanted, end: int, item: Wanted) -> bool:
    near = item.offset <= end + GAP and item.offset + item.length - first.offset <= BATCH
    return item.pack == first.pack and near
