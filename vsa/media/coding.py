"""How the extents of one media become frames of its packs, and extents again.

One object of the media says all of it: which digest, which compression, sealed or not. It is handed to
whoever writes or reads packs, and nobody else needs to know whether the media is sealed.
"""

from __future__ import annotations

from typing import Protocol

from vsa.errors import MediaDamaged
from vsa.media import layout
from vsa.media.cipher import OVERHEAD
from vsa.media.frames import UNSEALED, Codec, Fingerprint
from vsa.media.sealing import Sealer
from vsa.media.store import Buffer

NO_COMMITMENT = bytes(16)


class PackSeal(Protocol):
    """Seals and opens the frames and the table of one pack, each in its place (`sealing.PackSealer`)."""

    @property
    def commitment(self) -> bytes:
        """What the header of the pack states."""
        ...

    def seal_frame(self, stored: Buffer, *, offset: int, raw_length: int) -> Buffer: ...

    def open_frame(self, sealed: Buffer, *, offset: int, raw_length: int, where: str) -> Buffer:
        """What was sealed there, as a builder of another pack takes it; MediaDamaged if it was not that."""
        ...

    def seal_table(self, table: Buffer, *, offset: int) -> Buffer: ...

    def open_table(self, sealed: Buffer, *, offset: int, commitment: bytes, where: str) -> Buffer: ...


class Unsealed:
    """The seal of packs on unsealed media: none."""

    commitment = NO_COMMITMENT

    def seal_frame(self, stored: Buffer, *, offset: int, raw_length: int) -> Buffer:
        return stored

    def open_frame(self, sealed: Buffer, *, offset: int, raw_length: int, where: str) -> Buffer:
        return sealed

    def seal_table(self, table: Buffer, *, offset: int) -> Buffer:
        return table

    def open_table(self, sealed: Buffer, *, offset: int, commitment: bytes, where: str) -> Buffer:
        if commitment != NO_COMMITMENT:
            raise MediaDamaged(f"{where}: the reserved bytes of the header are not zero")
        return sealed


_UNSEALED = Unsealed()


class PackCodec:
    """Fingerprint, compression and seal of one media; safe for many threads."""

    def __init__(self, media_id: str, extent_size: int, sealer: Sealer | None = None) -> None:
        """`sealer` is the media's own; without one nothing is sealed."""
        self.media_id = bytes.fromhex(media_id)
        self.extent_size = extent_size
        self.sealed = sealer is not None
        self._sealer = sealer
        self._fingerprinter = sealer.fingerprinter if sealer else UNSEALED
        self._codec = Codec(self._fingerprinter)

    @property
    def overhead(self) -> int:
        """Bytes that a stored frame may be longer than its extent."""
        return OVERHEAD if self.sealed else 0

    def fingerprint(self, data: Buffer) -> Fingerprint:
        """What proves an extent on this media; on sealed media no plain digest does."""
        return self._fingerprinter.fingerprint(data)

    def compress(self, data: Buffer) -> Buffer:
        """The extent as `PackBuilder.add` takes it: zstd, or raw; not sealed yet."""
        return self._codec.encode(data)

    def seal_of(self, pack: str) -> PackSeal:
        """What seals and opens the pack of this name."""
        return self._sealer.pack(layout.pack_id(pack)) if self._sealer else _UNSEALED

    def seal_of_new(self, pack_id: bytes) -> PackSeal:
        """What seals a pack that has no name yet."""
        return self._sealer.pack(pack_id) if self._sealer else _UNSEALED

    def decode(self, stored: Buffer, raw_length: int, expected: Fingerprint, where: str) -> Buffer:
        """The extent of an opened frame, `raw_length` bytes; MediaDamaged naming `where` if it cannot be
        proven."""
        return self._codec.decode(stored, raw_length, expected, where)
