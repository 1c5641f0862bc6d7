"""Everything that a media's data key does: digests, whole objects, and the frames of packs.

docs/media-format.md, "Sealed media". One key for each purpose, each object and each pack is derived from
the data key with HKDF-SHA256; how nonces come about, and why none comes twice, is told in `cipher`.

GCM does not commit to its key: somebody who knows two keys can make one ciphertext that both open. So every
sealed object and pack states a commitment to the data key. It is the same in all objects of a media,
instead of fresh in each: then a damaged salt is told from a wrong key.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from enum import IntEnum

from vsa.errors import BadRequest, MediaDamaged, NewerVersion, WrongKey
from vsa.media.cipher import OVERHEAD, Cipher, DataKey, derive
from vsa.media.envelope import (
    CHUNK_SIZE,
    COMMITMENT_SIZE,
    SALT_SIZE,
    Envelope,
    Header,
    Read,
    SealedObject,
    SealedParts,
    open_object,
)
from vsa.media.frames import Fingerprinter
from vsa.media.store import Buffer
from vsa.ranges import ByteRange
from vsa.secret import Unseen

ID_SIZE = 16
MAX_PACK = 2**32
"""A pack is smaller than this many bytes, and so is every frame's raw length."""

# media id | pack id | offset | raw length | kind
_FRAME_CONTEXT = struct.Struct("<16s16sIIB")


class FrameKind(IntEnum):
    """What a sealed piece of a pack is, so that none can pass for another."""

    EXTENT = 0
    TABLE = 255


class Sealer(Unseen):
    """One media's data key at work. Thread-safe.

    Once it has opened an object it is known to be the key of its media, which by its descriptor this version
    knows. What it does not open after that is damaged, or is there by somebody else's doing.
    """

    __slots__ = ("_chunk_size", "_commitment", "_has_opened", "_key", "_media_id", "_random")

    def __init__(
        self,
        data_key: DataKey,
        media_id: bytes,
        *,
        random: Callable[[int], bytes] = os.urandom,
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        require_id("media", media_id)
        self._key = data_key.reveal()
        self._media_id = media_id
        self._random = random
        self._chunk_size = chunk_size
        self._has_opened = False
        self._commitment = derive(self._key, info=b"azure-vsa commitment" + media_id, length=COMMITMENT_SIZE)

    @property
    def media_id(self) -> bytes:
        return self._media_id

    @property
    def data_key(self) -> DataKey:
        """For wrapping it once more."""
        return DataKey(self._key)

    @property
    def commitment(self) -> bytes:
        """16 bytes that stand for the data key without telling anything about it."""
        return self._commitment

    @property
    def fingerprinter(self) -> Fingerprinter:
        """Fingerprints with BLAKE3 keyed for this media."""
        return Fingerprinter(derive(self._key, info=b"azure-vsa digest" + self._media_id))

    def seal(self, name: str, plaintext: Buffer) -> bytes:
        """The object to be stored under `name`; 64 bytes and 28 for each MiB longer."""
        return b"".join(self.sealed(name, plaintext))

    def sealed(self, name: str, plaintext: Buffer) -> Iterator[Buffer]:
        """The same piece by piece."""
        return iter(self.parts(name, plaintext))

    def parts(self, name: str, plaintext: Buffer) -> SealedParts:
        """The same as parts that a store takes: each is made when it is asked for, and is the same when it is
        asked for again, so an object of any size needs no memory."""
        header = Header(self._chunk_size, self._random(SALT_SIZE), self._commitment)
        return SealedParts(Envelope(header, self._object_cipher(header.salt), name), plaintext)

    def open(self, name: str, data: Buffer) -> bytes:
        """The plaintext of a whole object. MediaDamaged if it was altered, or if another key or newer version
        sealed it; while nothing has been opened yet that is WrongKey or NewerVersion."""
        view = memoryview(data)
        opened = self.opened(name, len(view), lambda at: view[at.offset : at.end])
        return opened.read(ByteRange(0, opened.size))

    def opened(self, name: str, size: int, read: Read) -> SealedObject:
        """The same in ranges, for an object of `size` stored bytes of which `read` fetches some."""
        try:
            found = open_object(name, size, read, commitment=self._commitment, cipher_for=self._object_cipher)
        except (WrongKey, NewerVersion) as error:
            if not self._has_opened:
                raise
            raise MediaDamaged(f"{name} is not sealed as the rest of this media is: {error}") from error
        self._has_opened = True
        return found

    def pack(self, pack_id: bytes) -> PackSealer:
        """What seals and opens the frames of one pack."""
        require_id("pack", pack_id)
        cipher = Cipher(self._key, salt=pack_id, info=b"azure-vsa pack" + self._media_id)
        return PackSealer(cipher, self._media_id, pack_id, commitment=self._commitment)

    def _object_cipher(self, salt: bytes) -> Cipher:
        return Cipher(self._key, salt=salt, info=b"azure-vsa object" + self._media_id)


class PackSealer(Unseen):
    """Seals the frames and the table of one pack, each in its place. Thread-safe."""

    __slots__ = ("_cipher", "_media_id", "_pack_id", "commitment")

    def __init__(self, cipher: Cipher, media_id: bytes, pack_id: bytes, *, commitment: bytes) -> None:
        self._cipher = cipher
        self._media_id = media_id
        self._pack_id = pack_id
        self.commitment = commitment
        """What the header of the pack states."""

    def seal_frame(self, stored: Buffer, *, offset: int, raw_length: int) -> bytearray:
        """nonce | ciphertext | tag, for `offset` of the pack; `stored` stands for `raw_length` bytes."""
        return self._cipher.seal(stored, self._context(offset, raw_length, FrameKind.EXTENT))

    def open_frame(self, sealed: Buffer, *, offset: int, raw_length: int, where: str) -> bytes:
        """What was sealed at that place of this pack; MediaDamaged naming `where` if it was not this."""
        return self._cipher.open(sealed, self._context(offset, raw_length, FrameKind.EXTENT), where)

    def seal_table(self, table: Buffer, *, offset: int) -> bytearray:
        """The table, sealed whole: the CRCs in it would tell of the contents."""
        return self._cipher.seal(table, self._context(offset, len(table), FrameKind.TABLE))

    def open_table(self, sealed: Buffer, *, offset: int, commitment: bytes, where: str) -> bytes:
        """The table of a pack whose header states `commitment`.

        WrongKey if neither that nor the seal is of this key. MediaDamaged if only one of them is.
        """
        length = max(0, len(sealed) - OVERHEAD)
        try:
            table = self._cipher.open(sealed, self._context(offset, length, FrameKind.TABLE), where)
        except MediaDamaged:
            if commitment == self.commitment:
                raise
            raise WrongKey(
                f"{where} was sealed under another key than this one: give the key of this media"
            ) from None
        if commitment != self.commitment:
            raise MediaDamaged(f"{where}: the pack's header has changed since it was sealed")
        return table

    def _context(self, offset: int, raw_length: int, kind: FrameKind) -> bytes:
        if not (0 <= offset < MAX_PACK and 0 <= raw_length < MAX_PACK):
            raise BadRequest(
                f"a frame of {raw_length} bytes at {offset}: packs are smaller than {MAX_PACK} bytes"
            )
        return _FRAME_CONTEXT.pack(self._media_id, self._pack_id, offset, raw_length, kind)


def require_id(what: str, value: bytes) -> None:
    if len(value) != ID_SIZE:
        raise BadRequest(f"a {what} id has {ID_SIZE} bytes, found {len(value)}")
