"""Sets of objects: the same whichever way they are kept, and as small as what is in them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vsa.upkeep.objects import few_of, is_disjoint, numbers_of, set_of, union

NUMBERS = st.sets(st.one_of(st.integers(0, 80), st.integers(0, 100_000)), max_size=30)


@given(st.lists(NUMBERS, max_size=6), NUMBERS)
def test_unions_and_intersections_are_those_of_the_members(sets, numbers):
    kept = [few_of(members) for members in sets]
    assert numbers_of(union(kept)) == sorted(set().union(*sets))
    assert [is_disjoint(item, numbers) for item in kept] == [members.isdisjoint(numbers) for members in sets]


@given(NUMBERS)
def test_a_set_is_kept_in_the_smaller_way(numbers):
    kept = few_of(numbers)
    if isinstance(kept, int):
        assert kept == set_of(numbers)
        assert kept.bit_length() <= 32 * len(numbers) + 8
    else:
        assert kept.tolist() == sorted(numbers)


def test_a_few_objects_among_very_many_take_the_room_of_a_few():
    """A bit for each object, kept for each of as many points, would be the square of their number."""
    kept = few_of([1, 10_000_000])
    assert isinstance(kept, np.ndarray)
    assert kept.nbytes == 8


def test_most_objects_take_a_bit_each():
    kept = few_of(range(10_000))
    assert isinstance(kept, int)
    assert kept.bit_length() == 10_000
