"""One stored extent: a zstd frame, or the extent as it is (docs/media-format.md, "Frames").

A frame is hostile until its contents match the CRC32C and the BLAKE3 digest that the index states.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import zstandard
from blake3 import blake3
from crc32c import crc32c

from vsa.errors import MediaDamaged
from vsa.media.store import Buffer
from vsa.ranges import KIB, MIB
from vsa.secret import Unseen

ZSTD_LEVEL = 1
RAW_UNLESS_BELOW = 0.97
_SUSPICIOUS = 3
"""Extents in a row that did not compress, after which the next ones are sampled before they are compressed:
encrypted and compressed data come in long runs, and zstd spends a third of its time to find out."""
_WHOLE_AGAIN = 16
"""One extent in so many of such a run is compressed whatever its samples say. They lie where databases begin
their pages: data of which each page is noise and then zeros would stay raw for as long as it lasts."""
_SAMPLES, _SAMPLE = 4, 2 * KIB
"""Pieces of an extent that are compressed to see whether the whole would."""
_LARGEST_WINDOW = 8 * MIB
"""A frame that asks for more memory than its contents can fill is refused."""


class Fingerprint(NamedTuple):
    """What proves an extent's contents: CRC32C (Castagnoli) and 32 bytes of BLAKE3, keyed on sealed media."""

    crc: int
    digest: bytes


class Fingerprinter(Unseen):
    """Computes fingerprints as one media has them, so that nobody needs to know whether it is sealed.

    Unsealed media has plain BLAKE3. Sealed media has BLAKE3 keyed with 32 bytes of its own
    (`Sealer.fingerprinter`): a plain digest would tell whoever reads it that a disk holds a known extent.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key

    def fingerprint(self, data: Buffer) -> Fingerprint:
        """The fingerprint of an extent's bytes as they are on the disk."""
        hasher = blake3(data) if self._key is None else blake3(data, key=self._key)
        return Fingerprint(crc32c(data), hasher.digest())


UNSEALED = Fingerprinter()


def fingerprint(data: Buffer) -> Fingerprint:
    """The fingerprint of an extent on unsealed media."""
    return UNSEALED.fingerprint(data)


class Codec:
    """Compresses and decodes frames; one zstd context for each thread that uses it.

    Of a run of incompressible extents only samples are compressed, and now and then a whole one. That costs
    space at worst: an extent whose samples do not compress though it would is stored as it is.
    """

    def __init__(self, fingerprinter: Fingerprinter = UNSEALED) -> None:
        self._contexts = threading.local()
        self._fingerprint = fingerprinter.fingerprint

    def encode(self, data: Buffer) -> Buffer:
        """The bytes to store; as long as `data` only if they are `data` itself."""
        compressor = self._compressor()
        in_vain: int = self._contexts.in_vain
        sampled = in_vain >= _SUSPICIOUS and in_vain % _WHOLE_AGAIN != 0
        if sampled and not _compresses(compressor, _sample_of(data)):
            self._contexts.in_vain += 1
            return data
        compressed = compressor.compress(data)
        if len(compressed) < RAW_UNLESS_BELOW * len(data):
            self._contexts.in_vain = 0
            return compressed
        self._contexts.in_vain += 1
        return data

    def decode(self, stored: Buffer, raw_length: int, expected: Fingerprint, where: str) -> Buffer:
        """The extent's `raw_length` bytes; MediaDamaged naming `where` if they cannot be proven."""
        data = stored if len(stored) == raw_length else self._decompress(stored, raw_length, where)
        # Two proofs that must both hold.
        if self._fingerprint(data) != expected:
            raise MediaDamaged(f"{where}: the contents do not match their CRC and digest")
        return data

    def _decompress(self, stored: Buffer, raw_length: int, where: str) -> bytes:
        try:
            # zstandard allocates what the frame's header says, so the header is judged first.
            stated = zstandard.get_frame_parameters(stored).content_size
            if stated != raw_length:
                raise MediaDamaged(f"{where}: the frame holds {stated} bytes, expected {raw_length}")
            data: bytes = self._decompressor().decompress(
                stored, max_output_size=raw_length, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise MediaDamaged(f"{where}: not a zstd frame: {error}") from error
        if len(data) != raw_length:
            raise MediaDamaged(f"{where}: the frame decodes to {len(data)} bytes, expected {raw_length}")
        return data

    def _compressor(self) -> zstandard.ZstdCompressor:
        if not hasattr(self._contexts, "compressor"):
            self._contexts.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=True)
            self._contexts.in_vain = 0
        compressor: zstandard.ZstdCompressor = self._contexts.compressor
        return compressor

    def _decompressor(self) -> zstandard.ZstdDecompressor:
        if not hasattr(self._contexts, "decompressor"):
            self._contexts.decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        decompressor: zstandard.ZstdDecompressor = self._contexts.decompressor
        return decompressor


def _sample_of(data: Buffer) -> bytes:
    """Pieces from all over the extent."""
    step = len(data) // _SAMPLES
    return b"".join(data[start : start + _SAMPLE] for start in range(0, _SAMPLES * step, step or 1))


def _compresses(compressor: zstandard.ZstdCompressor, sample: bytes) -> bool:
    return len(compressor.compress(sample)) < RAW_UNLESS_BELOW * len(sample)
