"""Each measure of growth at its smallest: it runs, proves what it measures, and its results can be shown."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.growth import data, fleet, index, media, sparse, sweep
from bench.growth.measure import Measure, Results, growth

SMALLEST = [
    (data.MEASURE, 1 / 64),
    (fleet.MEASURE, 3),
    (index.MEASURE, 1 / 16),
    (media.MEASURE, 210),
    (sparse.MEASURE, 1),
    (sweep.MEASURE, 8),
]


@pytest.mark.parametrize(("measure", "size"), SMALLEST, ids=[measure.name for measure, _ in SMALLEST])
def test_a_measure_at_its_smallest(measure: Measure, size: float, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    row = measure.take(size, tmp_path / "work")
    results = Results(tmp_path / "results" / f"{measure.name}.json", measure)
    results.add(size, row | {"peak MiB": 100.0})
    results.draw(tmp_path / "pictures")
    # So small a fleet is not throttled: of its waiting there is nothing to show.
    expected = {picture.name for picture in measure.pictures} - {"fleet-waiting"}
    drawn = {path.stem: ElementTree.parse(path) for path in (tmp_path / "pictures").iterdir()}
    assert drawn.keys() == expected
    assert all(list(picture.iter("{http://www.w3.org/2000/svg}circle")) for picture in drawn.values())
    (kept,) = json.loads((tmp_path / "results" / f"{measure.name}.json").read_text())["rows"]
    assert (kept["size"], kept["figures"]) == (size, row | {"peak MiB": 100.0})


def test_sizes_are_added_to_those_that_were_taken_before(tmp_path: Path) -> None:
    """Those that one machine has no room for may be taken on another."""
    path = tmp_path / "results.json"
    Results(path, index.MEASURE).add(2, {"plan CPU s": 1.0})
    Results(path, index.MEASURE).add(8, {"plan CPU s": 4.0})
    again = Results(path, index.MEASURE)
    again.add(2, {"plan CPU s": 2.0})
    assert again.rows == {2: {"plan CPU s": 2.0}, 8: {"plan CPU s": 4.0}}
    assert "| plan CPU s | 2 | 4 | 0.50 |" in again.table()


@pytest.mark.parametrize(
    ("sizes", "values", "power"),
    [
        ([1, 10, 100], [1.0, 2.0, 20.0], "1.00"),
        ([1, 2, 4], [1.0, 1.0, 4.0], "2.00"),
        ([1, 2], [3.0, 3.0], "0.00"),
        ([1, 2], [None, 3.0], ""),
        ([1, 2, 4], [1.0, None, 4.0], "1.00"),
    ],
)
def test_growth_is_the_power_of_the_size(sizes: list[float], values: list[float | None], power: str) -> None:
    assert growth(sizes, values) == power
