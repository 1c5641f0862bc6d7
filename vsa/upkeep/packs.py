"""One pack proven to the byte: its digest, and every frame that somebody needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from vsa.errors import MediaDamaged, ObjectMissing
from vsa.media.coding import PackCodec
from vsa.media.frames import Fingerprint
from vsa.media.index import PackRef
from vsa.media.pack import Frame, decode_frame
from vsa.media.parquet import Rows
from vsa.media.pinned import pieces
from vsa.media.store import Store
from vsa.ranges import ByteRange


@dataclass
class CheckedPack:
    """What became of a pack: `whole` if it is missing or has another size, `lost` are rows of its frames."""

    ref: PackRef
    read: int = 0
    proven: int = 0
    reason: str = ""
    whole: bool = False
    lost: list[int] = field(default_factory=list)


def misfit(store: Store, ref: PackRef) -> str:
    """Why a pack cannot be what was stored, by its size alone; empty if it can."""
    try:
        size = store.size(ref.name)
    except ObjectMissing as error:
        return str(error)
    return "" if size == ref.size else f"it has {size} bytes, {ref.size} were stored"


def check_pack(store: Store, ref: PackRef, frames: Rows, codec: PackCodec) -> CheckedPack:
    """Read the pack once, some MiB at a time. `frames` are FRAMEs, ascending by offset."""
    done = CheckedPack(ref, reason=misfit(store, ref))
    done.whole = bool(done.reason)
    reading = _Reading(done, frames, codec)
    digest = hashlib.sha256()
    for at in pieces(ref.size):
        data = _read(store, ref.name, at, done)
        digest.update(data)
        reading.take(at, data)
    reading.end()
    if not done.reason and digest.hexdigest() != ref.sha256:
        done.reason = "its bytes have changed since they were stored"
    return done


def _read(store: Store, name: str, at: ByteRange, done: CheckedPack) -> bytes:
    """The bytes, or as many of them as there are; none if they cannot be read."""
    try:
        data = store.read(name, at)
    except MediaDamaged as error:
        done.reason = done.reason or str(error)
        data = _beginning(store, name, at)
    done.read += len(data)
    return data


def _beginning(store: Store, name: str, at: ByteRange) -> bytes:
    """What a pack that is cut within the range still has of it."""
    try:
        end = min(at.end, store.size(name))
        return store.read(name, ByteRange(at.offset, end)) if end > at.offset else b""
    except MediaDamaged:
        return b""


class _Reading:
    """Frames decoded as the pack passes; of the pack only what a frame still lacks is held."""

    def __init__(self, done: CheckedPack, frames: Rows, codec: PackCodec) -> None:
        self._done = done
        self._frames = frames
        self._codec = codec
        self._seal = codec.seal_of(done.ref.name)
        self._next = 0
        self._held = b""
        self._first = 0

    def take(self, at: ByteRange, data: bytes) -> None:
        """The bytes that follow those before; fewer than `at` if the rest is lost."""
        if not self._held:
            self._first = at.offset
        self._held += data
        end = self._first + len(self._held)
        while self._next < len(self._frames):
            frame = self._frames[self._next]
            if int(frame["offset"]) + int(frame["length"]) > end:
                break
            self._check(frame)
            self._next += 1
        if len(data) < at.length:
            self._give_up_until(at.end)
        self._drop(end if self._next == len(self._frames) else int(self._frames[self._next]["offset"]))

    def end(self) -> None:
        """What did not come is lost."""
        self._done.lost += range(self._next, len(self._frames))

    def _check(self, frame: Rows) -> None:
        start, length = int(frame["offset"]) - self._first, int(frame["length"])
        expected = Fingerprint(int(frame["crc"]), frame["digest"].tobytes())
        where = f"its frame at bytes {int(frame['offset'])} to {int(frame['offset']) + length}"
        try:
            if start < 0:
                raise MediaDamaged(f"{where}: the bytes before were lost")
            stored = memoryview(self._held)[start : start + length]
            place = Frame(int(frame["offset"]), length, int(frame["size"]), expected)
            decode_frame(stored, place, self._codec, self._seal, where)
            self._done.proven += 1
        except MediaDamaged as error:
            self._done.reason = self._done.reason or str(error)
            self._done.lost.append(self._next)

    def _give_up_until(self, end: int) -> None:
        """Frames that begin in bytes which could not be read are lost."""
        while self._next < len(self._frames) and int(self._frames[self._next]["offset"]) < end:
            self._done.lost.append(self._next)
            self._next += 1
        self._held = b""

    def _drop(self, until: int) -> None:
        unneeded = min(max(0, until - self._first), len(self._held))
        self._held = self._held[unneeded:]
        self._first += unneeded
