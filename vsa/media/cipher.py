"""The one place where bytes are encrypted: AES-256-GCM, derived keys, and nonces that nobody chooses.

GCM fails utterly if a key and a nonce ever meet twice with different messages: the difference of the two
plaintexts shows, and forgeries become possible. A random nonce, or a random key for every pack, is not
enough for us: a proxy that is a cloned virtual machine may repeat its random generator's output, pack ids
and salts included, and then seal other data under the same key. So a nonce is *synthetic*: the first 12
bytes of BLAKE3, keyed with a key of its own, over everything that is sealed and everything that is
authenticated with it. Two messages share a nonce only if they are the same message in the same place,
and then the ciphertext is the same, too; which tells a reader of the media that something was written
twice, and nothing else.

Limits (NIST SP 800-38D): a message has at most 2^36 - 32 bytes, and one key seals at most 2^32 messages,
since the nonces are as good as random 96-bit numbers. Both are enforced, and neither is ever near: a pack
has at most 16,385 messages, a whole object of 64 GiB 65,536.
"""

from __future__ import annotations

import hmac
import itertools
import struct
from collections.abc import Callable

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vsa.errors import BadRequest, MediaDamaged
from vsa.media.store import Buffer
from vsa.secret import Unseen

KEY_SIZE = 32
NONCE_SIZE = 12
TAG_SIZE = 16
OVERHEAD = NONCE_SIZE + TAG_SIZE
"""Bytes that a sealed message is longer than its plaintext."""
MAX_MESSAGE = 2**36 - 32
MAX_MESSAGES = 2**32

_LENGTH = struct.Struct("<Q")


class DataKey(Unseen):
    """The 32 bytes under which a media is sealed; they exist in memory, and wrapped in `keys/`."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise BadRequest(f"a data key has {KEY_SIZE} bytes, found {len(key)}")
        self._key = bytes(key)

    @classmethod
    def generate(cls, random: Callable[[int], bytes]) -> DataKey:
        return cls(random(KEY_SIZE))

    def reveal(self) -> bytes:
        return self._key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataKey) and hmac.compare_digest(self._key, other._key)

    def __hash__(self) -> int:
        return hash(self._key)


def derive(key: bytes, *, salt: bytes = b"", info: bytes, length: int = KEY_SIZE) -> bytes:
    """HKDF-SHA256 (RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(key)


class Cipher(Unseen):
    """Seals and opens messages under one derived key. Thread-safe; it lets other threads run meanwhile."""

    __slots__ = ("_aead", "_nonce_key", "_sealed")

    def __init__(self, key: bytes, *, salt: bytes = b"", info: bytes) -> None:
        material = derive(key, salt=salt, info=info, length=2 * KEY_SIZE)
        self._aead = AESGCM(material[:KEY_SIZE])
        self._nonce_key = material[KEY_SIZE:]
        self._sealed = itertools.count(1)

    def seal(self, plaintext: Buffer, aad: bytes) -> bytearray:
        """nonce | ciphertext | tag. The same input gives the same output; BadRequest beyond the limits."""
        if len(plaintext) > MAX_MESSAGE or next(self._sealed) > MAX_MESSAGES:
            raise BadRequest(
                f"sealing {len(plaintext)} bytes: expected at most {MAX_MESSAGE}, and at most {MAX_MESSAGES} "
                "messages under one key; take another pack"
            )
        nonce = self._nonce(plaintext, aad)
        sealed = bytearray(len(plaintext) + OVERHEAD)
        sealed[:NONCE_SIZE] = nonce
        # Encrypted in place: a concatenation would copy every extent once more.
        self._aead.encrypt_into(nonce, plaintext, aad, memoryview(sealed)[NONCE_SIZE:])
        return sealed

    def open(self, sealed: Buffer, aad: bytes, where: str) -> bytes:
        """The plaintext; MediaDamaged naming `where` unless just this was sealed, with this key and `aad`."""
        view = memoryview(sealed)
        try:
            return self._aead.decrypt(view[:NONCE_SIZE], view[NONCE_SIZE:], aad)
        except (InvalidTag, ValueError):
            # From None: what failed is told, and a chained error would carry the buffers along.
            raise MediaDamaged(
                f"{where}: the seal is broken: these bytes have changed or moved since they were sealed"
            ) from None

    def _nonce(self, plaintext: Buffer, aad: bytes) -> bytes:
        hasher = blake3(_LENGTH.pack(len(aad)) + aad, key=self._nonce_key)
        return hasher.update(plaintext).digest(NONCE_SIZE)
