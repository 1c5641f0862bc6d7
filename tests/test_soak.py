"""Parts of a soak: whoever has played all of them has played everything once."""

from __future__ import annotations

from itertools import chain, product

import pytest

from tests.soak import part_of

EVERYTHING = list(product(range(83), "abcdefghij"))


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 7, 10])
def test_every_item_is_in_exactly_one_part(parts: int) -> None:
    dealt = [part_of(EVERYTHING, part, parts) for part in range(1, parts + 1)]
    assert sorted(chain(*dealt)) == EVERYTHING
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@pytest.mark.parametrize("parts", [2, 3, 5, 7, 10])
def test_every_part_has_some_of_each_kind_of_fault(parts: int) -> None:
    for part in range(1, parts + 1):
        assert {kind for _, kind in part_of(EVERYTHING, part, parts)} == set("abcdefghij")


def test_a_longer_list_has_its_first_items_where_they_were() -> None:
    """A job makes a call more or less each time; the parts are played by runs that count by themselves."""
    assert part_of(range(830), 2, 5) == part_of(range(840), 2, 5)[:166]
