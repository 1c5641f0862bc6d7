"""Signs of life on the media: numbered, never relied on, gone with their run."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from tests.media.making import KEYS, NOW, flip_bit, named_key, new_media
from tests.upkeep.keeping import DAY, Keeping
from vsa.errors import MediaConflict
from vsa.media import layout
from vsa.media.entries import DoomEntry
from vsa.media.media import Media
from vsa.media.signs import MOST_READ, Heard, Sign, give, heard


@pytest.fixture(params=KEYS, ids=named_key)
def media(request: pytest.FixtureRequest, tmp_path: Path) -> Media:
    return new_media(tmp_path / "media", key=request.param)


def a_sign(number: int, run: str = "run-1") -> Sign:
    return Sign(run=run, number=number, at=NOW + dt.timedelta(minutes=number), every_seconds=60)


def newest(media: Media, run: str) -> Sign | None:
    """The last sign of the run that can be read."""
    found = heard(media, run)
    return found.last if found else None


def path_of(media: Media, number: int, run: str = "run-1") -> Path:
    return Path(media.location) / layout.sign(run, number)


def test_the_newest_is_the_one_with_the_highest_number(media: Media) -> None:
    assert newest(media, "run-1") is None
    for number in (0, 1, 10, 9):
        give(media, a_sign(number))
    give(media, a_sign(11, "run-2"))
    assert newest(media, "run-1") == a_sign(10)


def test_a_number_is_taken_once(media: Media) -> None:
    give(media, a_sign(0))
    with pytest.raises(MediaConflict):
        give(media, a_sign(0).model_copy(update={"every_seconds": 61}))
    assert newest(media, "run-1") == a_sign(0)


def test_one_that_is_spoilt_or_is_of_another_run_is_passed_over(tmp_path: Path) -> None:
    media = new_media(tmp_path / "media")
    for number in range(3):
        give(media, a_sign(number))
    give(media, a_sign(1, "run-2"))
    path_of(media, 2).chmod(0o600)
    flip_bit(path_of(media, 2), 700)
    path_of(media, 1).unlink()
    path_of(media, 1).write_bytes(path_of(media, 1, "run-2").read_bytes())
    assert newest(media, "run-1") == a_sign(0)
    path_of(media, 0).unlink()
    assert newest(media, "run-1") is None


def test_the_listing_tells_the_highest_number_also_of_those_that_cannot_be_read(media: Media) -> None:
    assert heard(media, "run-1") is None
    give(media, a_sign(0))
    for number in range(1, MOST_READ):
        media.store.create(layout.sign("run-1", number), [b"spoilt"])
    assert heard(media, "run-1") == Heard(a_sign(0), MOST_READ - 1)
    media.store.create(layout.sign("run-1", MOST_READ), [b"spoilt"])
    assert heard(media, "run-1") == Heard(None, MOST_READ)


def test_one_that_promises_the_next_for_tomorrow_is_passed_over(media: Media) -> None:
    give(media, a_sign(0))
    give(media, a_sign(1).model_copy(update={"every_seconds": 3601}))
    assert heard(media, "run-1") == Heard(a_sign(0), 1)


def test_what_has_another_name_is_no_sign(media: Media) -> None:
    give(media, a_sign(0))
    for name in ("1.json", "00000002.txt", "x/00000003.json"):
        media.store.create(f"{layout.signs('run-1')}{name}", [b"anything"])
    assert newest(media, "run-1") == a_sign(0)


def test_a_prune_takes_those_of_runs_that_are_over_and_the_log_does_not_name_them(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path)
    slot = keeping.back_up({0: "a"})
    over = [str(keeping.media.view().points[slot].run), keeping.begin()]
    at_work = keeping.begin()
    keeping.media.append(DoomEntry(runs=(over[1],), reason="swept"))
    for run in (*over, at_work):
        for number in range(2):
            give(keeping.media, a_sign(number, run))
    keeping.now += DAY / 2
    report = keeping.prune()
    assert not report.deleted.refused
    assert [newest(keeping.media, run) for run in over] == [None, None]
    assert newest(keeping.media, at_work) == a_sign(1, at_work)
    assert not any("/alive/" in name for name in keeping.media.view().doomed)
