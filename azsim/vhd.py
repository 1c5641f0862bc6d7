"""The 512-byte footer of a fixed VHD, as managed disks show it after their last byte.

Layout: "Virtual Hard Disk Image Format Specification", version 1.0, section "Hard Disk Footer Format".
"""

from __future__ import annotations

import datetime as dt
import struct
import uuid

FOOTER_BYTES = 512
_COOKIE = b"conectix"
_FIXED_DISK = 2
_EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)

# cookie | features | format version | data offset | seconds since 2000 | creator application, version
# and system | original size | current size | cylinders, heads, sectors | type | checksum | id | saved
_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB")
_CHECKSUM_AT = 64
_NO_NEXT_STRUCTURE = (1 << 64) - 1


def fixed_footer(size: int, disk_id: uuid.UUID, created_at: dt.datetime) -> bytes:
    """The footer of a fixed disk of `size` data bytes."""
    seconds = max(0, int((created_at - _EPOCH).total_seconds()))
    fields = [_COOKIE, 2, 0x00010000, _NO_NEXT_STRUCTURE, seconds, b"win ", 0x000A0000, b"Wi2k"]
    fields += [size, size, *_geometry(size), _FIXED_DISK, 0, disk_id.bytes, 0]
    footer = _FOOTER.pack(*fields).ljust(FOOTER_BYTES, b"\0")
    return footer[:_CHECKSUM_AT] + struct.pack(">I", _checksum(footer)) + footer[_CHECKSUM_AT + 4 :]


def check_fixed_footer(footer: bytes) -> int:
    """The data size that a valid fixed footer states; ValueError says what is wrong with another."""
    if len(footer) != FOOTER_BYTES or not footer.startswith(_COOKIE):
        raise ValueError(f"not a VHD footer: expected cookie {_COOKIE!r}, found {footer[:8]!r}")
    fields = _FOOTER.unpack_from(footer)
    current_size, disk_type, checksum = fields[9], fields[13], fields[14]
    if checksum != _checksum(footer):
        raise ValueError(f"VHD footer checksum is {checksum:#x}, expected {_checksum(footer):#x}")
    if disk_type != _FIXED_DISK:
        raise ValueError(f"VHD type is {disk_type}, expected {_FIXED_DISK} (fixed)")
    return int(current_size)


def _checksum(footer: bytes) -> int:
    """One's complement of the sum of all bytes, the checksum's own left out."""
    return ~(sum(footer) - sum(footer[_CHECKSUM_AT : _CHECKSUM_AT + 4])) & 0xFFFFFFFF


def _geometry(size: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors by the specification's appendix "CHS Calculation"."""
    sectors = min(size // 512, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        return sectors // 255 // 16, 16, 255
    per_track = 17
    heads = max(4, (sectors // per_track + 1023) // 1024)
    if sectors // per_track >= heads * 1024 or heads > 16:
        per_track, heads = 31, 16
    if sectors // per_track >= heads * 1024:
        per_track, heads = 63, 16
    return sectors // per_track // heads, heads, per_track
