"""A pack explains itself, and no flipped bit of it goes unnoticed."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media.making import noise, text
from vsa.errors import MediaDamaged, MediaUnusable
from vsa.media.frames import Codec, Fingerprint, fingerprint
from vsa.media.pack import FOOTER_SIZE, HEADER_SIZE, PackBuilder, PackHeader, check_frames, read_frames

MEDIA_ID, PACK_ID = bytes(range(16)), bytes(range(16, 32))


def a_pack(*extents: bytes) -> bytes:
    builder, codec = PackBuilder(media_id=MEDIA_ID, pack_id=PACK_ID, extent_size=4096), Codec()
    for data in extents:
        builder.add(codec.encode(data), len(data), fingerprint(data))
    return bytes(builder.close(codec).data)


def read_pack(data: bytes) -> list[bytes]:
    codec = Codec()
    frames = read_frames(data, "pack")
    check_frames(data, frames, codec, "pack")
    stored = [(data[frame.offset : frame.offset + frame.length], frame) for frame in frames]
    return [bytes(codec.decode(part, frame.raw_length, frame.fingerprint, "pack")) for part, frame in stored]


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300).map(lambda seed: seed * 5), max_size=8))
def test_a_pack_gives_back_its_extents_in_order(extents):
    assert read_pack(a_pack(*extents)) == extents


def test_a_pack_names_its_media_and_itself():
    assert PackHeader.decode(a_pack(), "pack") == PackHeader(4096, MEDIA_ID, PACK_ID, 0)


def test_what_does_not_shrink_is_stored_as_it_is():
    loose, tight = noise("a"), text("a")
    frames = read_frames(a_pack(loose, tight), "pack")
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


def test_every_cut_is_noticed():
    data = a_pack(noise(1, 40), text(2, 200))
    for length in range(len(data)):
        with pytest.raises(MediaDamaged):
            read_pack(data[:length])


def test_a_pack_of_a_newer_version_asks_for_an_upgrade():
    for offset in (8, 10):
        data = bytearray(a_pack(b"x"))
        data[offset] = 0x80
        with pytest.raises(MediaUnusable, match="upgrade"):
            read_frames(data, "pack")


@pytest.mark.parametrize("offset", [HEADER_SIZE, HEADER_SIZE + 20, HEADER_SIZE + 45])
def test_memory_that_fails_before_the_pack_is_stored_is_caught(offset):
    builder, codec = PackBuilder(media_id=MEDIA_ID, pack_id=PACK_ID, extent_size=4096), Codec()
    for data in (noise(1, 40), text(2, 200)):
        builder.add(codec.encode(data), len(data), fingerprint(data))
    builder._data[offset] ^= 4
    with pytest.raises(MediaDamaged, match="a pack in memory, frame"):
        builder.close(codec)


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
        read_frames(garbage, "pack")


def test_a_table_cannot_point_outside_its_frames():
    data = bytearray(a_pack(noise(1, 40)))
    table = len(data) - FOOTER_SIZE - 52
    struct.pack_into("<I", data, table, 10_000)
    from crc32c import crc32c

    proof = crc32c(bytes(data[table:-FOOTER_SIZE]), crc32c(bytes(data[:HEADER_SIZE])))
    struct.pack_into("<I", data, len(data) - 12, proof)
    with pytest.raises(MediaDamaged, match="expected one at"):
        read_frames(data, "pack")
