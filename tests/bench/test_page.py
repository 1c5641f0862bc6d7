"""Goals, results and the page that is made of them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.goals import Verdict, judged, medians
from bench.measures import Row
from bench.report import write_page
from bench.results import Results, Round

MIB = 1 << 20
CHANGED = {"1": 40 * MIB, "0.1": 4 * MIB}


def row(wall: float, cpu: float = 1.0, **more: float) -> Row:
    return {"wall": wall, "cpu": cpu, **more}


def ours(wall: float, cpu: float = 1.0, **more: float) -> Row:
    """A stream has all figures."""
    return row(wall, cpu, **{"servers": 0, "memory": 0, "read": 0, "audited": 0, "stored": 0, **more})


def verdict(name: str, measures: dict[str, Row]) -> Verdict:
    return next(found for found in judged(measures, CHANGED, 2) if found.goal.name == name)


def test_walls_are_held_against_the_quickest_peer_there_is() -> None:
    measures = {"us/full/plain": ours(5.0), "qemu-img/full": row(12.0)}
    name = "full, wall against the best peer, plain"
    assert verdict(name, measures).reached is True
    found = verdict(name, {**measures, "borg/full": row(8.0)})
    assert found.found == 5 / 8 and found.reached is False
    assert verdict(name, {"borg/full": row(8.0)}).reached is None


def test_what_must_be_at_least_so_much_is_judged_so() -> None:
    name = "full, cores kept busy, tls"
    assert verdict(name, {"us/full/tls": ours(10, 15, servers=3)}).reached is True
    assert verdict(name, {"us/full/tls": ours(10, 14, servers=3)}).reached is False


def test_what_the_audit_read_is_not_held_against_a_change_list() -> None:
    cbt = ours(1, read=210 * MIB, audited=10 * MIB, stored=81 * MIB)
    assert verdict("CBT 1 %, bytes read for each changed, audit apart", {"us/cbt-1/tls": cbt}).reached is True
    assert verdict("CBT 1 %, bytes stored for each changed", {"us/cbt-1/tls": cbt}).reached is False


def test_the_median_is_that_of_the_rounds_that_have_the_figure() -> None:
    rounds = [{"a": row(1)}, {"a": row(9, servers=4)}, {"a": row(3), "b": row(7)}]
    assert medians(rounds) == {"a": row(3, servers=4), "b": row(7)}


@pytest.fixture
def results() -> Results:
    return Results(
        about={
            "commit": "abc",
            "python": "3.11",
            "kernel": "6",
            "processor": "a processor",
            "cores": 2,
            "memory": 24 << 30,
            "peers": {"borg": "borg 1.2"},
            "image": {"size": 64 * MIB, "allocated": 40 * MIB, "sha256": "00", "changed": CHANGED},
        },
        missing={"restic": "apt-get install restic"},
        rounds=[
            Round(
                "2026-03-01T00:00:00+00:00",
                0.5,
                measures={
                    "borg/full": row(10, stored=MIB, memory=MIB),
                    "us/full/tls": row(5, servers=1, stored=MIB, memory=MIB, **{"whole wall": 6.0}),
                    "reader/ours/tls": row(1, servers=1, read=1 << 30),
                },
                failed={"benji/full": "no room"},
            )
        ],
    )


def test_results_are_read_as_they_were_written(results: Results, tmp_path: Path) -> None:
    assert Results.read(tmp_path) is None
    results.write(tmp_path / "results")
    assert Results.read(tmp_path / "results") == results
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["results.json"]


def test_the_page_tells_goals_figures_and_what_is_missing(results: Results, tmp_path: Path) -> None:
    text = write_page(results, tmp_path).read_text()
    assert "| full, wall against the best peer, tls | at most 0.75 | 0.5x | reached |" in text
    assert "| full, wall against the best peer, plain | at most 0.6 | not measured |  |" in text
    assert "| us/full/tls | 5.00 | 1.00 | 1.00 |  | 1.0 | 1.0 |" in text
    assert "- restic: apt-get install restic" in text and "- benji/full: failed: no room" in text
    assert "![Full backup, wall seconds](full-wall.svg)" in text and "restore.svg" not in text


def test_pictures_show_every_measure_with_its_value(results: Results, tmp_path: Path) -> None:
    write_page(results, tmp_path)
    picture = ElementTree.fromstring((tmp_path / "full-wall.svg").read_text())
    told = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert told == ["Full backup, wall seconds", "us/full/tls", "5.00 s", "borg/full", "10.0 s"]
