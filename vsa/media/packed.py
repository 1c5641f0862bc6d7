"""Nouns kept as bytes until somebody asks for them: one zstd frame of JSON each.

A long log holds a hundred thousand of them, and most commands look at none. What comes from a checkpoint
was written by somebody else, so nothing is unpacked beyond the size that a log entry may have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import zstandard
from pydantic import ValidationError

from vsa.errors import MediaDamaged
from vsa.media.layout import MAX_DOCUMENT_SIZE

T = TypeVar("T")


class Packer:
    """Packs many nouns; not safe for many threads."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=1)

    def pack(self, json: str | bytes) -> bytes:
        packed = self._compressor.compress(json.encode() if isinstance(json, str) else json)
        # A copy: what zstandard gives keeps the memory that the worst case would have taken.
        return bytes(memoryview(packed))


def unpack(data: bytes, decode: Callable[[bytes], T]) -> T:
    """What `decode` makes of the JSON; MediaDamaged if it is none, or larger than an entry can be."""
    try:
        return decode(_json(data))
    except (ValidationError, zstandard.ZstdError, ValueError) as error:
        raise MediaDamaged(
            f"a checkpoint of the log holds something unreadable ({error}): "
            "give a witness, then the log itself is read"
        ) from error


def _json(data: bytes) -> bytes:
    size = zstandard.get_frame_parameters(data).content_size
    if size > MAX_DOCUMENT_SIZE:
        raise ValueError(f"it states a size of {size} bytes, at most {MAX_DOCUMENT_SIZE} are possible")
    return zstandard.ZstdDecompressor().decompress(data)
