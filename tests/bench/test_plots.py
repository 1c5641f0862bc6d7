"""Plots: well-formed, complete, and to scale."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from bench.plots import HEIGHT, WIDTH, plot

_SVG = "{http://www.w3.org/2000/svg}"


def places(picture: str) -> list[tuple[float, float]]:
    circles = ElementTree.fromstring(picture).iter(f"{_SVG}circle")
    return [(float(circle.attrib["cx"]), float(circle.attrib["cy"])) for circle in circles]


def words(picture: str) -> list[str | None]:
    return [text.text for text in ElementTree.fromstring(picture).iter(f"{_SVG}text")]


def test_every_point_is_shown_inside_and_a_straight_line_is_straight():
    points = [(1.0, 3.0), (2.0, 6.0), (4.0, 12.0)]
    found = places(plot("Cost", "GiB", "s", {"full": points}))
    (x1, y1), (x2, y2), (x3, y3) = found
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in found)
    assert (y2 - y1) / (x2 - x1) == pytest.approx((y3 - y2) / (x3 - x2), rel=0.01)
    assert y3 < y1


def test_equal_ratios_are_equal_steps_of_a_logarithmic_axis():
    points = [(1_000, 1.0), (10_000, 10.0), (100_000, 100.0), (1_000_000, 1000.0)]
    found = places(plot("t", "x", "y", {"a": points}, log_x=True, log_y=True))
    steps = [round(right[0] - left[0]) for left, right in pairwise(found)]
    assert len(set(steps)) == 1


def test_words_are_escaped_and_every_line_is_named():
    picture = plot("a < b & c", "x", "y", {"one & two": [(1, 1)], "three": [(2, 2)]})
    found = words(picture)
    assert {"a < b & c", "one & two", "three"} <= set(found)
    assert len(set(re.findall(r'circle [^>]*fill="(#\w+)"', picture))) == 2


def test_what_a_logarithm_cannot_show_is_left_out():
    assert len(places(plot("t", "x", "y", {"a": [(0, 1), (1, 1), (10, 0)]}, log_x=True, log_y=True))) == 1


def test_nothing_to_show_is_an_error():
    with pytest.raises(ValueError, match="no point"):
        plot("t", "x", "y", {"a": []})


@pytest.mark.parametrize("values", [[0.0], [0.004], [1.0, 1.0], [5.0, 0.1], [3e9, 1.0]])
def test_any_values_have_an_axis(values):
    points = [(index + 1, value) for index, value in enumerate(values)]
    found = places(plot("t", "x", "y", {"a": points}))
    assert len(found) == len(values)
    assert all(0 <= y <= HEIGHT for _, y in found)
