"""Every object name and every fixed size of the media, in one place (docs/media-format.md, "Names").

Names come from hostile media too: `is_pack`, `is_index` and `require_name` decide what may be asked for.
"""

from __future__ import annotations

import re
from enum import StrEnum
from uuid import UUID

from vsa.errors import BadRequest
from vsa.ranges import GIB, KIB, MIB

FORMAT_VERSION = 1
SEALED = "sealed"
KNOWN_FEATURES: frozenset[str] = frozenset({SEALED})

MIN_EXTENT_SIZE = 4 * KIB
MAX_EXTENT_SIZE = 4 * MIB
SEGMENT = 65_536
"""Extents in one segment of a disk; a row group of an index never crosses one."""

PACK_TARGET = 64 * MIB
PACK_FRAMES = 16_384
"""Frames after which a pack is full however small they are, so that its table stays small."""
MAX_DOCUMENT_SIZE = 16 * MIB
"""Largest media.json, log entry or intent that is ever written or read."""
MAX_INDEX_SIZE = 64 * GIB
MAX_FOOTER_SIZE = 256 * MIB
"""Largest footer of an index, enough for the pack table of a disk of 64 TiB without zeros."""

MEDIA = "media.json"
LOG = "log/"
RUNS = "runs/"
KEYS = "keys/"
CHECKPOINTS = "checkpoints/"

_ID = r"[a-z0-9][a-z0-9-]{0,63}"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}(/[a-z0-9][a-z0-9._-]{0,127}){0,7}")
_PACK = re.compile(rf"runs/({_ID})/packs/([0-9a-f]{{32}})\.pack")
_INDEX = re.compile(rf"runs/({_ID})/index/({_ID})-[0-9a-f]{{16}}\.parquet")
_MOVES = re.compile(rf"runs/({_ID})/moves/[0-9a-f]{{16}}\.parquet")
_DIGESTS = re.compile(rf"runs/({_ID})/digests/({_ID})-[0-9a-f]{{16}}\.parquet")
_SLOT = re.compile(r"log/([0-9]{12})")
_CHECKPOINT = re.compile(r"checkpoints/([0-9]{12})\.parquet")
_INTENT = re.compile(rf"runs/({_ID})/intent\.json")
_OUTCOME = re.compile(rf"runs/({_ID})/streams/({_ID})-[0-9a-f]{{32}}\.json")
_SIGN = re.compile(rf"runs/({_ID})/alive/([0-9]{{8}})\.json")
_KEY = re.compile(r"keys/(0|[1-9][0-9]{0,2})")
_IDENTIFIER = re.compile(_ID)
_OF_RUNS = (_PACK, _INDEX, _MOVES, _DIGESTS, _INTENT, _OUTCOME)


class IndexKind(StrEnum):
    """What an index says of an extent that has no row: zeros (base), or as before (delta)."""

    BASE = "base"
    DELTA = "delta"


def slot(number: int) -> str:
    return f"{LOG}{number:012}"


def intent(run: str) -> str:
    return f"{RUNS}{require_identifier(run)}/intent.json"


def outcome(run: str, disk_key: str, attempt: UUID) -> str:
    """What one attempt at one stream came to. An attempt is made once: its id never comes back."""
    return f"{RUNS}{require_identifier(run)}/streams/{require_identifier(disk_key)}-{attempt.hex}.json"


def signs(run: str) -> str:
    """What the names of a run's signs of life begin with."""
    return f"{RUNS}{require_identifier(run)}/alive/"


def sign(run: str, number: int) -> str:
    return f"{signs(run)}{number:08}.json"


def sign_of(name: str) -> tuple[str, int] | None:
    """The run that a sign of life is of, and its number; None for any other name."""
    match = _SIGN.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def pack(run: str, pack_id: bytes) -> str:
    return f"{RUNS}{require_identifier(run)}/packs/{pack_id.hex()}.pack"


def index(run: str, disk_key: str, random: bytes) -> str:
    return f"{RUNS}{require_identifier(run)}/index/{require_identifier(disk_key)}-{random.hex()}.parquet"


def disk_key_of(index: str) -> str:
    """The key of the disk that an index is of, by its name; BadRequest if it is none."""
    match = _INDEX.fullmatch(index)
    if match is None:
        raise BadRequest(f"{index!r} is no name of an index")
    return match[2]


def moves(run: str, random: bytes) -> str:
    return f"{RUNS}{require_identifier(run)}/moves/{random.hex()}.parquet"


def digests_of(index: str) -> str:
    """The name of the digests object that belongs to an index."""
    return index.replace("/index/", "/digests/", 1)


def key(number: int) -> str:
    return f"{KEYS}{number}"


def checkpoint(seq: int) -> str:
    return f"{CHECKPOINTS}{seq:012}.parquet"


def key_number(name: str) -> int | None:
    """The number of a key document; None if the name is no key document's, or one that no reader takes."""
    match = _KEY.fullmatch(name)
    return int(match[1]) if match else None


def pack_id(name: str) -> bytes:
    """The 16 bytes in a pack's name; BadRequest if it is none."""
    match = _PACK.fullmatch(name)
    if match is None:
        raise BadRequest(f"{name!r} is no name of a pack")
    return bytes.fromhex(match[2])


def is_pack(name: str) -> bool:
    return _PACK.fullmatch(name) is not None


def is_index(name: str) -> bool:
    return _INDEX.fullmatch(name) is not None


def is_moves(name: str) -> bool:
    return _MOVES.fullmatch(name) is not None


def is_digests(name: str) -> bool:
    return _DIGESTS.fullmatch(name) is not None


def is_intent(name: str) -> bool:
    return _INTENT.fullmatch(name) is not None


def is_outcome(name: str) -> bool:
    return _OUTCOME.fullmatch(name) is not None


def is_run(name: str) -> bool:
    return _IDENTIFIER.fullmatch(name) is not None


def slot_number(name: str) -> int | None:
    """The slot that a log object's name stands for; None if it is no log object."""
    match = _SLOT.fullmatch(name)
    return int(match[1]) if match else None


def checkpoint_slot(name: str) -> int | None:
    """The slot that a checkpoint's name stands for; None if it is no checkpoint."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else None


def run_of(name: str) -> str | None:
    """The run that an object below `runs/` belongs to; None for any other name, and for signs of life, which
    no doom entry names."""
    match = next((m for m in (kind.fullmatch(name) for kind in _OF_RUNS) if m), None)
    return match[1] if match else None


def require_name(name: str) -> None:
    """Refuse (BadRequest) what could leave the media's folder or mean two things on some file system."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"{name!r} is no object name: expected lower-case parts of a-z 0-9 . _ - joined by '/'"
        )


def segments(extents: int) -> int:
    """Number of segments of a disk of so many extents."""
    return -(-extents // SEGMENT)


def extent_count(disk_size: int, extent_size: int) -> int:
    """Number of extents of a disk; the last one may be short."""
    return -(-disk_size // extent_size)


def extent_length(extent: int, disk_size: int, extent_size: int) -> int:
    """Bytes of one extent: `extent_size`, but for the last one of a disk that is no multiple of it."""
    return min(extent_size, disk_size - extent * extent_size)


def require_identifier(value: str) -> str:
    """The value, if it may be part of an object's or a file's name; BadRequest if not."""
    if not _IDENTIFIER.fullmatch(value):
        raise BadRequest(f"{value!r} cannot be part of an object name: expected 1 to 64 of a-z 0-9 -")
    return value
