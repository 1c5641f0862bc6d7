"""Frames decode to their extents; what does not compress is recognised before zstd has gone through it."""

from __future__ import annotations

import random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from vsa.media import frames
from vsa.media.frames import Codec, fingerprint
from vsa.ranges import KIB

EXTENT = 64 * KIB


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes zstd was given, call by call."""
    lengths: list[int] = []
    real = zstandard.ZstdCompressor

    class Watched:
        def __init__(self, **options: object) -> None:
            self._compressor = real(**options)

        def compress(self, data: bytes) -> bytes:
            lengths.append(len(data))
            return self._compressor.compress(data)

    monkeypatch.setattr(frames.zstandard, "ZstdCompressor", Watched)
    return lengths


def noise(seed: int, length: int = EXTENT) -> bytes:
    return random.Random(seed).randbytes(length)


TEXT = (b"what compresses well, " * EXTENT)[:EXTENT]


def test_a_run_of_noise_is_sampled_and_stored_as_it_is(compressed: list[int]):
    codec = Codec()
    for seed in range(50):
        data = noise(seed)
        assert codec.encode(data) is data
    assert compressed[:3] == [EXTENT] * 3
    assert compressed[3:] == [8 * KIB if number % 16 else EXTENT for number in range(3, 50)]


def test_what_compresses_between_the_samples_is_found_soon():
    """Pages of a database that compresses them itself: noise first, then zeros, four to an extent."""
    codec = Codec()
    for seed in range(10):
        codec.encode(noise(seed))
    pages = b"".join(noise(100 + page, 4 * KIB) + bytes(12 * KIB) for page in range(4))
    lengths = [len(codec.encode(pages)) for _ in range(32)]
    assert lengths[0] == EXTENT, "this is data that samples do not recognise"
    assert max(lengths[16:]) < 0.3 * EXTENT


def test_after_noise_what_compresses_is_compressed_and_sampled_no_more(compressed: list[int]):
    codec = Codec()
    for seed in range(10):
        codec.encode(noise(seed))
    compressed.clear()
    assert len(codec.encode(TEXT)) < EXTENT // 10
    assert len(codec.encode(TEXT)) < EXTENT // 10
    assert compressed == [8 * KIB, EXTENT, EXTENT]


def test_text_somewhere_in_noise_is_found_by_a_sample(compressed: list[int]):
    """A quarter of an extent that compresses lies under one of the samples, wherever it lies."""
    codec = Codec()
    for seed in range(10):
        codec.encode(noise(seed))
    for quarter in range(4):
        data = bytearray(noise(100 + quarter))
        data[quarter * EXTENT // 4 : (quarter + 1) * EXTENT // 4] = TEXT[: EXTENT // 4]
        assert len(codec.encode(bytes(data))) < 0.8 * EXTENT


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["noise", "text"]), st.integers(1, EXTENT), st.integers(0, 999)),
        max_size=20,
    )
)
def test_whatever_came_before_a_frame_decodes_to_its_extent(extents: list[tuple[str, int, int]]):
    codec = Codec()
    for kind, length, seed in extents:
        data = noise(seed, length) if kind == "noise" else TEXT[:length]
        for given_as in (data, memoryview(data)):
            stored = bytes(codec.encode(given_as))
            assert bytes(codec.decode(stored, length, fingerprint(data), "a frame")) == data
            assert len(stored) < 0.97 * length or stored == data
