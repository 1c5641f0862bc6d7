"""Byte ranges against sets of bytes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vsa.ranges import ByteRange, clip, merge, total

byte_ranges = st.tuples(st.integers(0, 60), st.integers(0, 12)).map(
    lambda pair: ByteRange(pair[0], pair[0] + pair[1])
)


def bytes_of(ranges: list[ByteRange]) -> set[int]:
    return {byte for item in ranges for byte in range(item.offset, item.end)}


@given(st.lists(byte_ranges))
def test_merging_keeps_every_byte_in_the_fewest_ordered_ranges(ranges: list[ByteRange]) -> None:
    merged = list(merge(ranges))
    assert bytes_of(merged) == bytes_of(ranges)
    assert all(item.length > 0 for item in merged)
    assert all(one.end < other.offset for one, other in pairwise(merged))
    assert total(merged) == len(bytes_of(ranges))
    assert list(merge(merged)) == merged


@given(st.lists(byte_ranges), byte_ranges)
def test_clipping_keeps_the_bytes_inside_the_window(ranges: list[ByteRange], window: ByteRange) -> None:
    clipped = list(clip(ranges, window))
    assert bytes_of(clipped) == bytes_of(ranges) & bytes_of([window])
    assert all(item.length > 0 for item in clipped)
