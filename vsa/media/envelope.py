"""Whole objects, sealed: documents, log entries, indexes (docs/media-format.md, "Sealed media").

header | chunk | chunk | ...

A chunk is sealed together with the header, the object's name, its number, and whether it is the last. So
chunks that change places, objects that change names, and objects that end early are all found, and a part
of an object can be read without the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Self, overload

from vsa.errors import BadRequest, MediaDamaged, NewerVersion, WrongKey
from vsa.media import layout
from vsa.media.cipher import OVERHEAD, Cipher
from vsa.media.store import Buffer
from vsa.ranges import KIB, MIB, ByteRange

MAGIC = b"AVSASEAL"
VERSION = 1
CHUNK_SIZE = MIB
MIN_CHUNK_SIZE = 4 * KIB
MAX_CHUNK_SIZE = 16 * MIB
MAX_OBJECT_SIZE = layout.MAX_INDEX_SIZE
SALT_SIZE = 32
COMMITMENT_SIZE = 16

# magic | version | flags | chunk size | salt | commitment
_HEADER = struct.Struct("<8sHHI32s16s")
# number of the chunk | whether it is the last
_POSITION = struct.Struct("<I?")

HEADER_SIZE = _HEADER.size

Read = Callable[[ByteRange], Buffer]


class Header(NamedTuple):
    """What stands in clear before the chunks."""

    chunk_size: int
    salt: bytes
    commitment: bytes

    def encode(self) -> bytes:
        return _HEADER.pack(MAGIC, VERSION, 0, *self)

    @classmethod
    def decode(cls, data: Buffer, name: str) -> Self:
        """MediaDamaged if these are no sealed object's first bytes; NewerVersion if a newer version's."""
        if len(data) != HEADER_SIZE:
            raise MediaDamaged(f"{name}: a sealed object begins with {HEADER_SIZE} bytes, found {len(data)}")
        magic, version, flags, chunk_size, salt, commitment = _HEADER.unpack(data)
        if magic != MAGIC:
            raise MediaDamaged(f"{name}: not sealed, on sealed media: it begins with {magic!r}")
        if version != VERSION or flags:
            raise NewerVersion(
                f"{name}: seal version {version}, flags {flags:#x} are not known: upgrade azure-vsa"
            )
        if not MIN_CHUNK_SIZE <= chunk_size <= MAX_CHUNK_SIZE or chunk_size & (chunk_size - 1):
            raise MediaDamaged(f"{name}: chunks of {chunk_size} bytes do not exist")
        return cls(chunk_size, salt, commitment)


class Chunks(NamedTuple):
    """How an object of `size` bytes lies in chunks; an empty one is one empty chunk."""

    size: int
    chunk_size: int

    @classmethod
    def of_sealed(cls, sealed_size: int, chunk_size: int, name: str) -> Self:
        """From the size of the sealed object; MediaDamaged if nothing is sealed to that size."""
        whole, rest = divmod(sealed_size - HEADER_SIZE, chunk_size + OVERHEAD)
        size = whole * chunk_size + max(0, rest - OVERHEAD)
        if (0 < rest <= OVERHEAD and (whole, rest) != (0, OVERHEAD)) or whole + rest == 0:
            raise MediaDamaged(f"{name}: no object is sealed to {sealed_size} bytes: it was cut or extended")
        if size > MAX_OBJECT_SIZE:
            raise MediaDamaged(f"{name}: {size} bytes, expected at most {MAX_OBJECT_SIZE}")
        return cls(size, chunk_size)

    @property
    def last(self) -> int:
        return max(0, -(-self.size // self.chunk_size) - 1)

    def plain(self, number: int) -> ByteRange:
        """Where a chunk's plaintext lies in the object's."""
        offset = number * self.chunk_size
        return ByteRange(offset, min(offset + self.chunk_size, self.size))

    def sealed(self, number: int) -> ByteRange:
        """Where a chunk lies in the sealed object."""
        offset = HEADER_SIZE + number * (self.chunk_size + OVERHEAD)
        return ByteRange(offset, offset + self.plain(number).length + OVERHEAD)


def most_sealed(size: int) -> int:
    """Bytes that no sealed object of so much plaintext exceeds, whatever its chunks."""
    return HEADER_SIZE + size + OVERHEAD * (size // MIN_CHUNK_SIZE + 2)


class Envelope:
    """One object's chunks, sealed and opened one by one."""

    def __init__(self, header: Header, cipher: Cipher, name: str) -> None:
        self.header = header
        self._cipher = cipher
        self.name = name
        self._context = header.encode()

    def seal(self, chunk: Buffer, number: int, chunks: Chunks) -> Buffer:
        """One chunk's plaintext, sealed for its place; the same again if it is asked for again."""
        return self._cipher.seal(chunk, self._aad(number, chunks))

    def open(self, chunk: Buffer, number: int, chunks: Chunks) -> bytes:
        """One chunk's plaintext; MediaDamaged if it is not the one that was sealed there."""
        where = f"{self.name}, chunk {number} of {chunks.last + 1}"
        return self._cipher.open(chunk, self._aad(number, chunks), where)

    def _aad(self, number: int, chunks: Chunks) -> bytes:
        return self._context + _POSITION.pack(number, number == chunks.last) + self.name.encode()


class SealedParts(Sequence[Buffer]):
    """A sealed object as the header and its chunks, each of them sealed when it is asked for."""

    def __init__(self, envelope: Envelope, plaintext: Buffer) -> None:
        """BadRequest if the plaintext is larger than any reader accepts."""
        if len(plaintext) > MAX_OBJECT_SIZE:
            raise BadRequest(
                f"{envelope.name}: {len(plaintext)} bytes, at most {MAX_OBJECT_SIZE} can be sealed"
            )
        self._envelope = envelope
        self._plaintext = memoryview(plaintext)
        self._chunks = Chunks(len(plaintext), envelope.header.chunk_size)

    def __len__(self) -> int:
        return self._chunks.last + 2

    @overload
    def __getitem__(self, part: int) -> Buffer: ...

    @overload
    def __getitem__(self, part: slice) -> Sequence[Buffer]: ...

    def __getitem__(self, part: int | slice) -> Buffer | Sequence[Buffer]:
        if isinstance(part, slice):
            return [self[number] for number in range(*part.indices(len(self)))]
        number = range(len(self))[part] - 1
        if number < 0:
            return self._envelope.header.encode()
        at = self._chunks.plain(number)
        return self._envelope.seal(self._plaintext[at.offset : at.end], number, self._chunks)


class SealedObject:
    """Reads ranges of an object's plaintext; fetches and authenticates only the chunks that cover them.

    It knows the last chunk from the start: that one proves the key and the size.
    """

    def __init__(self, envelope: Envelope, chunks: Chunks, read: Read) -> None:
        self._envelope = envelope
        self._chunks = chunks
        self._read = read
        self._latest = (chunks.last, self._fetched(chunks.last))

    @property
    def size(self) -> int:
        """Bytes of the plaintext."""
        return self._chunks.size

    def read(self, at: ByteRange) -> bytes:
        """These bytes of the plaintext; MediaDamaged if a chunk is not what was sealed."""
        if not 0 <= at.offset <= at.end <= self.size:
            raise BadRequest(f"bytes {at.offset} to {at.end} of an object of {self.size} bytes")
        if at.length == 0:
            return b""
        first, last = at.offset // self._chunks.chunk_size, (at.end - 1) // self._chunks.chunk_size
        data = self._opened(first) if first == last else b"".join(self._several(first, last))
        start = at.offset - self._chunks.plain(first).offset
        return data[start : start + at.length]

    def _opened(self, number: int) -> bytes:
        known, data = self._latest
        if known != number:
            data = self._fetched(number)
            self._latest = (number, data)
        return data

    def _several(self, first: int, last: int) -> Iterator[bytes]:
        """Neighbours, fetched in one request."""
        start = self._chunks.sealed(first).offset
        data = memoryview(self._read(ByteRange(start, self._chunks.sealed(last).end)))
        for number in range(first, last + 1):
            at = self._chunks.sealed(number)
            yield self._envelope.open(data[at.offset - start : at.end - start], number, self._chunks)

    def _fetched(self, number: int) -> bytes:
        return self._envelope.open(self._read(self._chunks.sealed(number)), number, self._chunks)


def open_object(
    name: str, sealed_size: int, read: Read, *, commitment: bytes, cipher_for: Callable[[bytes], Cipher]
) -> SealedObject:
    """An object sealed under the key that `commitment` stands for; `cipher_for` takes the object's salt.

    MediaDamaged if it was altered, WrongKey if it was sealed under another key, NewerVersion if a newer
    version sealed it. A commitment, version or flags that differ may be either: it is damage if everything
    else holds.
    """
    if sealed_size < HEADER_SIZE + OVERHEAD:
        raise MediaDamaged(f"{name}: {sealed_size} bytes are too few for a sealed object: it was cut")
    start = read(ByteRange(0, HEADER_SIZE))
    try:
        header = Header.decode(start, name)
    except NewerVersion:
        # The seal covers the header: what opens as this version's is no newer one's.
        header = Header.decode(_as_known(start), name)
        if _opens(header._replace(commitment=commitment), name, sealed_size, read, cipher_for):
            raise _header_changed(name) from None
        raise
    right = header._replace(commitment=commitment)
    if header == right:
        chunks = Chunks.of_sealed(sealed_size, header.chunk_size, name)
        return SealedObject(Envelope(right, cipher_for(header.salt), name), chunks, read)
    if _opens(right, name, sealed_size, read, cipher_for):
        raise _header_changed(name)
    raise WrongKey(f"{name} was sealed under another key than this one: give the key of this media")


def _as_known(start: Buffer) -> bytes:
    """A header with the version and the flags that there are."""
    magic, _, _, *rest = _HEADER.unpack(start)
    return _HEADER.pack(magic, VERSION, 0, *rest)


def _opens(
    header: Header, name: str, sealed_size: int, read: Read, cipher_for: Callable[[bytes], Cipher]
) -> bool:
    """Whether the last chunk was sealed with this header."""
    chunks = Chunks.of_sealed(sealed_size, header.chunk_size, name)
    try:
        SealedObject(Envelope(header, cipher_for(header.salt), name), chunks, read)
    except MediaDamaged:
        return False
    return True


def _header_changed(name: str) -> MediaDamaged:
    return MediaDamaged(f"{name}: its header has changed since it was sealed")
