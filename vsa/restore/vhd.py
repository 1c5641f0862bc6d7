"""The footer that makes a disk image a fixed VHD, the only image format that Azure takes.

Layout and arithmetic: Virtual Hard Disk Image Format Specification, version 1.0, "Hard Disk Footer
Format" and "Appendix: CHS Calculation". All numbers are big-endian.
"""

from __future__ import annotations

import datetime as dt
import struct
import uuid
from typing import NamedTuple

from vsa.errors import BadRequest

FOOTER_SIZE = 512
SECTOR = 512
EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)

# cookie 8s | features | version | data offset | time | creator 4s | creator version | creator OS 4s |
# original size | current size | cylinders, heads, sectors | disk type | checksum | id 16s | saved state
_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
_CHECKSUM = slice(64, 68)

_COOKIE = b"conectix"
_RESERVED_FEATURE = 2
_VERSION_1_0 = 0x0001_0000
_NO_DYNAMIC_HEADER = 0xFFFF_FFFF_FFFF_FFFF
_FIXED = 2
# Readers decide by the creator whether the size or the rounded CHS geometry counts; for "win " it is
# the size, in QEMU (block/vpc.c) as in Hyper-V.
_CREATOR, _CREATOR_VERSION, _CREATOR_OS = b"win ", 0x000A_0000, b"Wi2k"


class Geometry(NamedTuple):
    cylinders: int
    heads: int
    sectors: int


def geometry(size: int) -> Geometry:
    """Cylinders, heads and sectors per track for a disk of `size` bytes; addresses at most 127.5 GiB."""
    sectors = min(size // SECTOR, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        return Geometry(sectors // 255 // 16, 16, 255)
    heads = min(max(4, -(-(sectors // 17) // 1024)), 17)
    if heads <= 16 and sectors // 17 < heads * 1024:
        return Geometry(sectors // 17 // heads, heads, 17)
    per_track = 31 if sectors // 31 < 16 * 1024 else 63
    return Geometry(sectors // per_track // 16, 16, per_track)


def footer(size: int, made_at: dt.datetime, identity: uuid.UUID) -> bytes:
    """The 512 bytes that follow `size` bytes of data; BadRequest if those are not whole sectors."""
    if size % SECTOR or size <= 0:
        raise BadRequest(f"a VHD holds whole sectors of {SECTOR} bytes, not {size} bytes: restore as raw")
    seconds = max(0, int((made_at - EPOCH).total_seconds())) & 0xFFFF_FFFF
    unsigned = _FOOTER.pack(
        *(_COOKIE, _RESERVED_FEATURE, _VERSION_1_0, _NO_DYNAMIC_HEADER, seconds),
        *(_CREATOR, _CREATOR_VERSION, _CREATOR_OS, size, size, *geometry(size)),
        *(_FIXED, 0, identity.bytes, 0),
    )
    signed = bytearray(unsigned)
    signed[_CHECKSUM] = checksum(unsigned).to_bytes(4, "big")
    return bytes(signed)


def checksum(block: bytes) -> int:
    """The one's complement of the sum of the footer's bytes, those of the checksum itself left out."""
    return ~(sum(block) - sum(block[_CHECKSUM])) & 0xFFFF_FFFF
