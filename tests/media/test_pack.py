"""A pack explains itself, and no flipped bit of it goes unnoticed."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media.making import noise, text
from vsa.errors import MediaDamaged, MediaUnusable, WrongKey
from vsa.media.cipher import DataKey
from vsa.media.coding import PackCodec
from vsa.media.frames import Codec, Fingerprint, fingerprint
from vsa.media.pack import (
    FOOTER_SIZE,
    HEADER_SIZE,
    PackBuilder,
    PackHeader,
    check_frames,
    decode_frame,
    read_frames,
)
from vsa.media.sealing import Sealer

MEDIA_ID, PACK_ID = bytes(range(16)), bytes(range(16, 32))


UNSEALED = PackCodec(MEDIA_ID.hex(), 4096)
SEALED = PackCodec(MEDIA_ID.hex(), 4096, Sealer(DataKey(bytes(range(32))), MEDIA_ID))
CODECS = [UNSEALED, SEALED]
NAME = f"runs/r/packs/{PACK_ID.hex()}.pack"

on_every_media = pytest.mark.parametrize("codec", CODECS, ids=["unsealed", "sealed"])


def filled(codec: PackCodec, *extents: bytes, pack_id: bytes = PACK_ID) -> PackBuilder:
    builder = PackBuilder(codec, pack_id)
    for data in extents:
        builder.add(codec.compress(data), len(data), codec.fingerprint(data))
    return builder


def a_pack(*extents: bytes, codec: PackCodec = UNSEALED) -> bytes:
    return bytes(filled(codec, *extents).close().data)


def read_pack(data: bytes, codec: PackCodec = UNSEALED, name: str = NAME) -> list[bytes]:
    frames = read_frames(data, name, codec)
    check_frames(data, frames, codec, name)
    seal = codec.seal_of(name)
    stored = [(data[frame.offset : frame.offset + frame.length], frame) for frame in frames]
    return [bytes(decode_frame(part, frame, codec, seal, "frame")) for part, frame in stored]


@on_every_media
@settings(deadline=None)
@given(extents=st.lists(st.binary(min_size=1, max_size=300).map(lambda seed: seed * 5), max_size=8))
def test_a_pack_gives_back_its_extents_in_order(codec, extents):
    assert read_pack(a_pack(*extents, codec=codec), codec) == extents


def test_a_pack_names_its_media_and_itself():
    assert PackHeader.decode(a_pack(), "pack") == PackHeader(4096, MEDIA_ID, PACK_ID, 0, bytes(16))


def test_what_does_not_shrink_is_stored_as_it_is():
    loose, tight = noise("a"), text("a")
    frames = read_frames(a_pack(loose, tight), NAME, UNSEALED)
    assert frames[0].length == len(loose)
    assert frames[1].length < len(tight) / 10


def test_no_flipped_bit_is_ever_read_as_data():
    """zstd's frame header has one bit without meaning; only the digest of the whole pack sees that one."""
    extents = [noise(1, 40), text(2, 200)]
    data = a_pack(*extents)
    unnoticed = 0
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with suppress(MediaDamaged, MediaUnusable):
            assert read_pack(bytes(flipped)) == extents
            unnoticed += 1
    assert unnoticed <= 1


@on_every_media
def test_every_cut_is_noticed(codec):
    data = a_pack(noise(1, 40), text(2, 200), codec=codec)
    for length in range(len(data)):
        with pytest.raises(MediaDamaged):
            read_pack(data[:length], codec)


def test_a_pack_of_a_newer_version_asks_for_an_upgrade():
    for offset in (8, 10):
        data = bytearray(a_pack(b"x"))
        data[offset] = 0x80
        with pytest.raises(MediaUnusable, match="upgrade"):
            read_frames(data, NAME, UNSEALED)


@on_every_media
@pytest.mark.parametrize("offset", [HEADER_SIZE, HEADER_SIZE + 20, HEADER_SIZE + 45])
def test_memory_that_fails_before_the_pack_is_stored_is_caught(codec, offset):
    builder = filled(codec, noise(1, 40), text(2, 200))
    builder._data[offset] ^= 4
    with pytest.raises(MediaDamaged, match="a pack in memory, frame"):
        builder.close()


def test_of_a_sealed_pack_every_flipped_byte_is_found():
    extents = [noise(1, 40), text(2, 200)]
    data = a_pack(*extents, codec=SEALED)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        with pytest.raises((MediaDamaged, MediaUnusable)):
            read_pack(bytes(changed), SEALED)


def test_a_sealed_pack_shows_neither_contents_nor_what_proves_them():
    extent = text("canary", 4096)
    data = a_pack(extent, codec=SEALED)
    proof = SEALED.fingerprint(extent)
    for secret in (b"canary", proof.digest, struct.pack("<I", proof.crc), fingerprint(extent).digest):
        assert secret not in data
    # Not compressed either, where that was: sealed or not, a frame is smaller than its extent.
    assert len(data) < 1024


def test_extents_of_sealed_media_are_proven_by_a_digest_that_only_its_key_gives():
    extent = text("canary", 4096)
    keyed = SEALED.fingerprint(extent)
    assert keyed == Sealer(DataKey(bytes(range(32))), MEDIA_ID).fingerprinter.fingerprint(extent)
    assert keyed.digest != fingerprint(extent).digest
    (frame,) = read_frames(a_pack(extent, codec=SEALED), NAME, SEALED)
    assert frame.fingerprint == keyed


def test_a_sealed_pack_is_of_one_media_one_name_and_one_key():
    data = a_pack(text(1, 200), codec=SEALED)
    with pytest.raises(WrongKey, match="under another key"):
        read_pack(data, PackCodec(MEDIA_ID.hex(), 4096, Sealer(DataKey(bytes(32)), MEDIA_ID)))
    with pytest.raises(MediaDamaged, match="seal is broken"):
        read_pack(data, SEALED, f"runs/r/packs/{'0' * 32}.pack")
    with pytest.raises(MediaDamaged, match="not sealed, on sealed media"):
        read_pack(a_pack(text(1, 200)), SEALED)
    with pytest.raises(MediaDamaged, match="is sealed, on unsealed media"):
        read_pack(data, UNSEALED)


@on_every_media
def test_a_frame_moves_by_being_opened_and_added_again(codec):
    extents = [text(1, 300), noise(2, 50), text(3, 400)]
    data, other = a_pack(*extents, codec=codec), bytes(reversed(PACK_ID))
    moved, seal = PackBuilder(codec, other), codec.seal_of(NAME)
    for frame in reversed(read_frames(data, NAME, codec)):
        stored = seal.open_frame(
            data[frame.offset : frame.offset + frame.length],
            offset=frame.offset,
            raw_length=frame.raw_length,
            where=NAME,
        )
        moved.add(stored, frame.raw_length, frame.fingerprint)
    again = bytes(moved.close().data)
    assert read_pack(again, codec, f"runs/r/packs/{other.hex()}.pack") == extents[::-1]


def test_a_frame_that_moves_as_it_lies_is_never_stored():
    data = a_pack(text(1, 300), text(2, 300), codec=SEALED)
    _, second = read_frames(data, NAME, SEALED)
    builder = PackBuilder(SEALED, PACK_ID)
    builder.add(data[second.offset : second.offset + second.length], 300, second.fingerprint)
    with pytest.raises(MediaDamaged):
        builder.close()


def test_a_frame_has_the_length_of_its_message():
    data = a_pack(noise(1, 100), text(2, 2000), codec=SEALED)
    raw, packed = read_frames(data, NAME, SEALED)
    assert raw.length == 100 + SEALED.overhead == 128
    assert packed.length < 200


@pytest.mark.parametrize(
    "wrong", [Fingerprint(1, fingerprint(b"x").digest), Fingerprint(fingerprint(b"x").crc, bytes(32))]
)
def test_both_proofs_must_hold(wrong):
    with pytest.raises(MediaDamaged, match="do not match"):
        Codec().decode(b"x", 1, wrong, "frame")


def test_a_frame_that_claims_to_be_huge_is_refused_by_its_header():
    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    assert len(bomb) < 4096
    with pytest.raises(MediaDamaged, match="holds 67108864 bytes, expected 4096"):
        Codec().decode(bomb, 4096, fingerprint(bytes(4096)), "frame")


def test_a_frame_that_hides_its_size_is_refused():
    streamed = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    frame = streamed.compress(bytes(4096)) + streamed.flush()
    with pytest.raises(MediaDamaged):
        Codec().decode(frame, 4096, fingerprint(bytes(4096)), "frame")


@pytest.mark.parametrize("extra", [b"x", zstandard.compress(b"more")])
def test_bytes_after_a_frame_are_refused(extra):
    frame = zstandard.compress(bytes(4096)) + extra
    with pytest.raises(MediaDamaged):
        Codec().decode(frame, 4096, fingerprint(bytes(4096)), "frame")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_never_a_frame(garbage):
    with pytest.raises(MediaDamaged):
        Codec().decode(garbage, 4096, fingerprint(bytes(4096)), "frame")


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_garbage_is_never_a_pack(garbage):
    with pytest.raises(MediaDamaged):
        read_frames(garbage, NAME, UNSEALED)


def test_a_table_cannot_point_outside_its_frames():
    data = bytearray(a_pack(noise(1, 40)))
    table = len(data) - FOOTER_SIZE - 52
    struct.pack_into("<I", data, table, 10_000)
    from crc32c import crc32c

    proof = crc32c(bytes(data[table:-FOOTER_SIZE]), crc32c(bytes(data[:HEADER_SIZE])))
    struct.pack_into("<I", data, len(data) - 12, proof)
    with pytest.raises(MediaDamaged, match="expected one at"):
        read_frames(data, NAME, UNSEALED)
