"""A second implementation of sealing, from docs/media-format.md alone; it shares no code with the engine."""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.media import second_reader


def hkdf(key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    extracted = hmac.digest(salt or bytes(32), key, "sha256")
    block, output = b"", b""
    for count in range(1, -(-length // 32) + 1):
        block = hmac.digest(extracted, block + info + bytes([count]), "sha256")
        output += block
    return output[:length]


def open_message(material: bytes, sealed: bytes, context: bytes) -> bytes:
    """One message; also checks that its nonce is the one that a writer has to choose."""
    plain = AESGCM(material[:32]).decrypt(sealed[:12], sealed[12:], context)
    nonce_input = len(context).to_bytes(8, "little") + context + plain
    assert sealed[:12] == blake3(nonce_input, key=material[32:]).digest()[:12]
    return plain


def open_object(data_key: bytes, media: bytes, name: str, sealed: bytes) -> bytes:
    header, body = sealed[:64], sealed[64:]
    magic, version, flags, chunk_size, salt, commitment = struct.unpack("<8sHHI32s16s", header)
    assert (magic, version, flags) == (b"AVSASEAL", 1, 0)
    assert commitment == hkdf(data_key, b"", b"azure-vsa commitment" + media, 16)
    material = hkdf(data_key, salt, b"azure-vsa object" + media, 64)
    pieces = [body[at : at + chunk_size + 28] for at in range(0, len(body), chunk_size + 28)]
    return b"".join(
        open_message(
            material,
            piece,
            header + number.to_bytes(4, "little") + bytes([piece is pieces[-1]]) + name.encode(),
        )
        for number, piece in enumerate(pieces)
    )


def open_frame(
    data_key: bytes, media: bytes, pack: bytes, sealed: bytes, *, offset: int, raw_length: int, kind: int
) -> bytes:
    material = hkdf(data_key, pack, b"azure-vsa pack" + media, 64)
    return open_message(material, sealed, media + pack + struct.pack("<IIB", offset, raw_length, kind))


def digest(data_key: bytes, media: bytes, extent: bytes) -> bytes:
    return blake3(extent, key=hkdf(data_key, b"", b"azure-vsa digest" + media, 32)).digest()


def open_key(document: bytes, secret: bytes) -> bytes:
    """The data key from a key document, given a passphrase, the bytes of a key file, or what a vault has
    decrypted."""
    fields = json.loads(document)
    return open_message(*key_message(fields, secret))


class SealedFolder(second_reader.Folder):
    """The objects of sealed media, opened with one of its key documents."""

    features = ("sealed",)
    overhead = 28

    def __init__(self, path: Path, number: int, secret: bytes) -> None:
        super().__init__(path)
        self._data_key = open_key((path / f"keys/{number}").read_bytes(), secret)
        self._media = bytes.fromhex(json.loads((path / "media.json").read_bytes())["id"])

    def read(self, name: str) -> bytes:
        data = super().read(name)
        return data if name == "media.json" else open_object(self._data_key, self._media, name, data)

    def frame(self, pack: str, offset: int, length: int, raw: int) -> bytes:
        sealed = super().frame(pack, offset, length, raw)
        pack_id = bytes.fromhex(Path(pack).stem)
        return open_frame(self._data_key, self._media, pack_id, sealed, offset=offset, raw_length=raw, kind=0)


def key_message(fields: dict[str, Any], secret: bytes) -> tuple[bytes, bytes, bytes]:
    """Keys, message and context of a key document."""
    way = fields["way"]
    if way["kind"] == "passphrase":
        salt = bytes.fromhex(way["salt"])
        n, r, p = 1 << way["log2_n"], way["r"], way["p"]
        wrapping = hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=1 << 30, dklen=32)
        facts = ["passphrase", "scrypt", str(way["log2_n"]), str(r), str(p), way["salt"]]
    elif way["kind"] == "file":
        wrapping = hkdf(secret, bytes.fromhex(way["salt"]), b"azure-vsa key file", 32)
        facts = ["file", way["salt"]]
    else:
        wrapping = secret
        facts = ["key-vault", way["key"], way["algorithm"], way["wrapped"]]
    owner = [fields["media"], fields["descriptor"], str(fields["number"])]
    context = "\n".join(["azure-vsa key 1", *owner, *facts]).encode()
    return hkdf(wrapping, b"", b"azure-vsa wrap", 64), bytes.fromhex(fields["wrapped"]), context
