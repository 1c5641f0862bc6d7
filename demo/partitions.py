"""Partition tables of image files: one Linux partition from 1 MiB on, and where a file system begins.

GPT: UEFI specification 2.10, section 5.3. MBR: the same, section 5.2. Sectors are 512 bytes.
"""

from __future__ import annotations

import random
import struct
import uuid
import zlib
from pathlib import Path

from vsa.ranges import MIB, ByteRange

PARTITION_START = MIB

_SECTOR = 512
_MBR_ENTRY = struct.Struct("<B3sB3sII")
_MBR_SIGNATURE = b"\x55\xaa"
_LINUX, _PROTECTIVE = 0x83, 0xEE
# Both ends of every MBR entry say "see the sector numbers": disks this large have no cylinders.
_NO_CYLINDERS = b"\xfe\xff\xff"

_GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
_GPT_ENTRIES = 128
_TABLE_SECTORS = _GPT_ENTRIES * _GPT_ENTRY.size // _SECTOR
_LINUX_DATA = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")

_EXT_MAGIC_AT, _EXT_MAGIC = 1080, b"\x53\xef"


def write_mbr(path: Path, seed: int) -> ByteRange:
    """Partition the image with an MBR; returns the partition, which reaches to the end of the disk."""
    partition = ByteRange(PARTITION_START, path.stat().st_size // MIB * MIB)
    signature = random.Random(seed).getrandbits(32)  # noqa: S311 - repeatable, not secret
    with path.open("r+b") as image:
        image.write(_mbr(_LINUX, partition, signature))
    return partition


def write_gpt(path: Path, seed: int) -> ByteRange:
    """Partition the image with a GPT and its copy; returns the partition, 1 MiB away from both ends."""
    size = path.stat().st_size
    partition = ByteRange(PARTITION_START, (size - MIB) // MIB * MIB)
    identities = random.Random(seed)  # noqa: S311 - repeatable, not secret
    disk_id, partition_id = (uuid.UUID(int=identities.getrandbits(128), version=4) for _ in range(2))
    entry = _GPT_ENTRY.pack(
        _LINUX_DATA.bytes_le,
        partition_id.bytes_le,
        partition.offset // _SECTOR,
        partition.end // _SECTOR - 1,
        0,
        "root".encode("utf-16-le"),
    )
    table = entry.ljust(_TABLE_SECTORS * _SECTOR, b"\0")
    last = size // _SECTOR - 1
    with path.open("r+b") as image:
        image.write(_mbr(_PROTECTIVE, ByteRange(_SECTOR, size), 0))
        image.write(_gpt_header(1, last, 2, disk_id, table) + table)
        image.seek((last - _TABLE_SECTORS) * _SECTOR)
        image.write(table + _gpt_header(last, 1, last - _TABLE_SECTORS, disk_id, table))
    return partition


def find_filesystem(path: Path) -> int | None:
    """Offset in bytes of the ext file system on the disk or in its first partition; None without one."""
    with path.open("rb") as image:
        head = image.read(PARTITION_START)
        start = _first_partition(head)
        image.seek(start + _EXT_MAGIC_AT)
        return start if image.read(len(_EXT_MAGIC)) == _EXT_MAGIC else None


def _first_partition(head: bytes) -> int:
    """Offset of the first partition in bytes, 0 for a disk without a table."""
    if head[510:512] != _MBR_SIGNATURE:
        return 0
    _, _, kind, _, first, _ = _MBR_ENTRY.unpack_from(head, 446)
    if kind == _PROTECTIVE:
        _, _, first, _, _, _ = _GPT_ENTRY.unpack_from(head, 2 * _SECTOR)
    return int(first) * _SECTOR


def _mbr(kind: int, partition: ByteRange, signature: int) -> bytes:
    first, count = partition.offset // _SECTOR, partition.length // _SECTOR
    entry = _MBR_ENTRY.pack(0, _NO_CYLINDERS, kind, _NO_CYLINDERS, first, min(count, 0xFFFFFFFF))
    return bytes(440) + struct.pack("<IH", signature, 0) + entry.ljust(64, b"\0") + _MBR_SIGNATURE


def _gpt_header(here: int, other: int, table_at: int, disk_id: uuid.UUID, table: bytes) -> bytes:
    last = max(here, other)
    usable = (2 + _TABLE_SECTORS, last - _TABLE_SECTORS - 1)
    tail = (disk_id.bytes_le, table_at, _GPT_ENTRIES, _GPT_ENTRY.size, zlib.crc32(table))
    # The header's own checksum is taken over the header with zeros in that field.
    blank = _GPT_HEADER.pack(b"EFI PART", 0x10000, _GPT_HEADER.size, 0, 0, here, other, *usable, *tail)
    header = blank[:16] + struct.pack("<I", zlib.crc32(blank)) + blank[20:]
    return header.ljust(_SECTOR, b"\0")
