"""Packs: many stored extents in one immutable object that explains itself (docs/media-format.md, "Packs").

header | frame | frame | ... | table | footer
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import NamedTuple, Self

from crc32c import crc32c

from vsa.errors import MediaDamaged, NewerVersion
from vsa.media import layout
from vsa.media.cipher import OVERHEAD
from vsa.media.coding import PackCodec, PackSeal
from vsa.media.frames import Fingerprint
from vsa.media.layout import PACK_FRAMES
from vsa.media.store import Buffer, Store
from vsa.memory import Buffers
from vsa.ranges import ByteRange

MAGIC = b"AVSAPACK"
END_MAGIC = b"AVSAPEND"
VERSION = 1

# magic | version | flags | extent size | media id | pack id | commitment, zero on unsealed media
_HEADER = struct.Struct("<8sHHI16s16s16s")
# offset | stored length | raw length | crc32c | blake3 | flags
_ROW = struct.Struct("<IIII32sI")
# table offset | table length | frames | crc32c of header and table | magic
_FOOTER = struct.Struct("<QIII8s")

HEADER_SIZE = _HEADER.size
FOOTER_SIZE = _FOOTER.size
ROW_SIZE = _ROW.size

SEALED = 0x1
"""Header flag of a pack whose frames and table are sealed (docs/media-format.md, "Sealed media")."""
RECORDS = 0x2
"""Header flag of a pack whose frames are records (docs/media-format.md, "Records"), not extents."""

# A reader refuses what it does not know.
_KNOWN_FLAGS = SEALED | RECORDS
_KNOWN_FRAME_FLAGS = 0


class Frame(NamedTuple):
    """Where one stored extent lies in its pack, and what proves its contents. `length` is as stored, sealed
    if the media is."""

    offset: int
    length: int
    raw_length: int
    fingerprint: Fingerprint


class PackBuilder:
    """A pack in memory; not thread-safe. Of a new buffer only what is filled becomes resident."""

    def __init__(
        self,
        codec: PackCodec,
        pack_id: bytes,
        *,
        target: int = layout.PACK_TARGET,
        flags: int = 0,
        largest: int | None = None,
        buffers: Buffers | None = None,
    ) -> None:
        """A pack of the media that `codec` is of. `largest` is the most bytes that one frame may stand for:
        those of an extent, unless it is said. Its buffer is one of `buffers`, if they are given."""
        ends = PACK_FRAMES * ROW_SIZE + FOOTER_SIZE + 2 * codec.overhead
        most = HEADER_SIZE + target + (largest or codec.extent_size) + ends
        self._buffers = buffers or Buffers()
        self._data = self._buffers.take(most)
        self._codec = codec
        self._seal = codec.seal_of_new(pack_id)
        header = PackHeader(
            codec.extent_size,
            codec.media_id,
            pack_id,
            flags | (SEALED if codec.sealed else 0),
            self._seal.commitment,
        )
        self._data[:HEADER_SIZE] = header.encode()
        self._end = HEADER_SIZE
        self._target = target
        self._frames: list[Frame] = []

    @property
    def full(self) -> bool:
        """Whether it is to be stored now: another frame may not fit."""
        return self._end >= self._target or len(self._frames) >= PACK_FRAMES

    def add(self, stored: Buffer, raw_length: int, fingerprint: Fingerprint) -> Frame:
        """Append one frame to a pack that is not full, and say where it lies.

        `stored` is what `PackCodec.compress` gives, or what `PackSeal.open_frame` gives of a frame in another
        pack: a sealed frame is bound to its pack and place, so one that moves is opened there and sealed anew
        here.
        """
        sealed = self._seal.seal_frame(stored, offset=self._end, raw_length=raw_length)
        frame = Frame(self._end, len(sealed), raw_length, fingerprint)
        self._append(sealed)
        self._frames.append(frame)
        return frame

    def close(self) -> ClosedPack:
        """Add table and footer, then decode every frame from the very buffer that will be stored.

        MediaDamaged if one is not what its fingerprint says: memory failed, or the caller's fingerprint
        is of other bytes.
        """
        table = self._end
        rows = b"".join(_ROW.pack(*frame[:3], *frame.fingerprint, 0) for frame in self._frames)
        self._append(self._seal.seal_table(rows, offset=table))
        proof = crc32c(self._data[table : self._end], crc32c(self._data[:HEADER_SIZE]))
        self._append(_FOOTER.pack(table, self._end - table, len(self._frames), proof, END_MAGIC))
        data = self._data[: self._end]
        # Hashed before it is proven: what flips later is seen by the hash, what flipped before by the proof.
        digest = hashlib.sha256(data).hexdigest()
        self._prove(data)
        return ClosedPack(data, digest, table - HEADER_SIZE)

    def give_back(self) -> None:
        """What `close` gave is stored, or will not be: its memory is for the next pack. The builder is of no
        use any more."""
        self._buffers.give_back(self._data)
        self._data = memoryview(b"")

    def _prove(self, data: memoryview) -> None:
        name = "a pack in memory"
        if _frames_of(data, self._seal, sealed=self._codec.sealed, name=name) != self._frames:
            raise MediaDamaged(f"{name}: its table is not what it was made of")
        _check_frames(data, self._frames, self._codec, self._seal, name)

    def _append(self, data: Buffer) -> None:
        self._data[self._end : self._end + len(data)] = data
        self._end += len(data)


class ClosedPack(NamedTuple):
    """A pack ready to be stored; `stored` counts its frames only."""

    data: memoryview
    sha256: str
    stored: int


class PackHeader(NamedTuple):
    extent_size: int
    media_id: bytes
    pack_id: bytes
    flags: int
    commitment: bytes

    def encode(self) -> bytes:
        return _HEADER.pack(
            MAGIC, VERSION, self.flags, self.extent_size, self.media_id, self.pack_id, self.commitment
        )

    @property
    def sealed(self) -> bool:
        return bool(self.flags & SEALED)

    @property
    def holds_records(self) -> bool:
        return bool(self.flags & RECORDS)

    @classmethod
    def decode(cls, data: Buffer, name: str) -> Self:
        """MediaDamaged if these are no pack's first bytes; NewerVersion if a newer version wrote them."""
        if len(data) < HEADER_SIZE:
            raise MediaDamaged(f"{name}: a pack header has {HEADER_SIZE} bytes, found {len(data)}")
        magic, version, flags, extent_size, media_id, pack_id, commitment = _HEADER.unpack_from(data)
        if magic != MAGIC:
            raise MediaDamaged(f"{name}: not a pack, it begins with {magic!r}")
        if version != VERSION or flags & ~_KNOWN_FLAGS:
            raise NewerVersion(
                f"{name}: pack version {version}, flags {flags:#x} are not known: upgrade azure-vsa"
            )
        return cls(extent_size, media_id, pack_id, flags, commitment)


class PackFooter(NamedTuple):
    table_offset: int
    table_length: int
    frames: int
    proof: int

    @classmethod
    def decode(cls, data: Buffer, pack_size: int, name: str, *, sealed: bool) -> Self:
        """From a pack's last FOOTER_SIZE bytes; MediaDamaged if no pack of that size can end so."""
        *fields, magic = _FOOTER.unpack(data)
        footer = cls(*fields)
        if magic != END_MAGIC:
            raise MediaDamaged(f"{name}: the pack does not end as packs do: it is cut or overwritten")
        if (
            footer.table_offset < HEADER_SIZE
            or footer.table_length != footer.frames * ROW_SIZE + (OVERHEAD if sealed else 0)
            or footer.table_offset + footer.table_length + FOOTER_SIZE != pack_size
        ):
            raise MediaDamaged(f"{name}: {footer} does not fit a pack of {pack_size} bytes")
        return footer


def read_frames(data: Buffer, name: str, codec: PackCodec) -> list[Frame]:
    """The table of a whole pack in memory, checked against header and footer; frames are not decoded.

    MediaDamaged if it is no pack as this media has them, WrongKey if it was sealed under another key.
    """
    return _frames_of(memoryview(data), codec.seal_of(name), sealed=codec.sealed, name=name)


def _frames_of(view: memoryview, seal: PackSeal, *, sealed: bool, name: str) -> list[Frame]:
    header = _required_header(view, len(view), sealed=sealed, name=name)
    footer = PackFooter.decode(view[-FOOTER_SIZE:], len(view), name, sealed=sealed)
    table = view[footer.table_offset : footer.table_offset + footer.table_length]
    return _checked_rows(header, table, footer, seal, name)


def read_table(store: Store, name: str, size: int, codec: PackCodec) -> list[Frame]:
    """The table of a stored pack of `size` bytes, without its frames. MediaDamaged if it is no pack as this
    media has them, WrongKey if it was sealed under another key."""
    sealed = codec.sealed
    start = store.read(name, ByteRange(0, min(size, HEADER_SIZE)))
    header = _required_header(start, size, sealed=sealed, name=name)
    end = store.read(name, ByteRange(size - FOOTER_SIZE, size))
    footer = PackFooter.decode(end, size, name, sealed=sealed)
    table = store.read(name, ByteRange(footer.table_offset, footer.table_offset + footer.table_length))
    return _checked_rows(header, memoryview(table), footer, codec.seal_of(name), name)


def proven_header(store: Store, name: str, size: int) -> bytes:
    """The first HEADER_SIZE bytes of a stored pack of `size` bytes, as `PackHeader.decode` takes them, proven
    by the CRC in its footer.

    The table is read but not opened, so it takes no key. MediaDamaged if it is no pack, or a spoilt one.
    """
    if size < HEADER_SIZE + FOOTER_SIZE:
        raise MediaDamaged(f"{name}: {size} bytes are too few for a pack")
    start = store.read(name, ByteRange(0, HEADER_SIZE))
    end = store.read(name, ByteRange(size - FOOTER_SIZE, size))
    # Not decoded before it is proven: what no version knows may be a bit that has flipped.
    flags = _HEADER.unpack(start)[2]
    footer = PackFooter.decode(end, size, name, sealed=bool(flags & SEALED))
    table = store.read(name, ByteRange(footer.table_offset, footer.table_offset + footer.table_length))
    _require_proof(start, table, footer, name)
    return start


def _required_header(data: Buffer, size: int, *, sealed: bool, name: str) -> PackHeader:
    header = PackHeader.decode(data, name)
    if size < HEADER_SIZE + FOOTER_SIZE:
        raise MediaDamaged(f"{name}: {size} bytes are too few for a pack")
    if header.sealed != sealed:
        found, expected = ("sealed", "unsealed") if header.sealed else ("not sealed", "sealed")
        raise MediaDamaged(f"{name}: the pack is {found}, on {expected} media")
    return header


def _checked_rows(
    header: PackHeader, stored: memoryview, footer: PackFooter, seal: PackSeal, name: str
) -> list[Frame]:
    _require_proof(header.encode(), stored, footer, name)
    where = f"{name}, its table"
    table = seal.open_table(stored, offset=footer.table_offset, commitment=header.commitment, where=where)
    overhead = OVERHEAD if header.sealed else 0
    return list(_table_rows(memoryview(table), footer.table_offset, overhead, name))


def _require_proof(header: Buffer, table: Buffer, footer: PackFooter, name: str) -> None:
    if crc32c(table, crc32c(header)) != footer.proof:
        raise MediaDamaged(f"{name}: header or table do not match their CRC")


def check_frames(data: Buffer, frames: list[Frame], codec: PackCodec, name: str) -> None:
    """Decode every frame; MediaDamaged naming the first that is not what its fingerprint says."""
    _check_frames(memoryview(data), frames, codec, codec.seal_of(name), name)


def _check_frames(view: memoryview, frames: list[Frame], codec: PackCodec, seal: PackSeal, name: str) -> None:
    for number, frame in enumerate(frames):
        where = f"{name}, frame {number} at bytes {frame.offset} to {frame.offset + frame.length}"
        decode_frame(view[frame.offset : frame.offset + frame.length], frame, codec, seal, where)


def decode_frame(stored: Buffer, frame: Frame, codec: PackCodec, seal: PackSeal, where: str) -> Buffer:
    """The extent of a frame as it lies in its pack; MediaDamaged naming `where` if it cannot be proven."""
    opened = seal.open_frame(stored, offset=frame.offset, raw_length=frame.raw_length, where=where)
    return codec.decode(opened, frame.raw_length, frame.fingerprint, where)


def _table_rows(table: memoryview, table_offset: int, overhead: int, name: str) -> Iterator[Frame]:
    """Rows in file order: frames lie back to back from the header to the table."""
    expected = HEADER_SIZE
    for offset, length, raw_length, crc, digest, flags in _ROW.iter_unpack(table):
        if flags & ~_KNOWN_FRAME_FLAGS:
            raise NewerVersion(f"{name}: frame flags {flags:#x} are not known: upgrade azure-vsa")
        if offset != expected or not 0 < length - overhead <= raw_length:
            raise MediaDamaged(f"{name}: a frame at {offset} of {length} bytes, expected one at {expected}")
        expected = offset + length
        yield Frame(offset, length, raw_length, Fingerprint(crc, digest))
    if expected != table_offset:
        raise MediaDamaged(f"{name}: frames end at {expected}, but the table begins at {table_offset}")
