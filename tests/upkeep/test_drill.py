"""The judge at the end of a restore drill: it must not believe what the restore believes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.media.making import flip_bit
from tests.restore.backups import EXTENT
from tests.upkeep.estate import OS, Estate, fresh
from vsa.media.frames import fingerprint
from vsa.media.index import IndexFile
from vsa.ranges import ByteRange
from vsa.restore.copying import Lost
from vsa.upkeep.drill import Judge
from vsa.upkeep.report import Depth

BASE, NEWER = fresh("base", 0, 1, 2, 39), fresh("newer", 1, 5)


@pytest.fixture
def files(tmp_path: Path) -> list[IndexFile]:
    estate = Estate(tmp_path)
    estate.back_up(OS, BASE)
    slot = estate.back_up(OS, NEWER | {2: None})
    media = estate.media
    refs = media.view().points[slot].point.disks[0].indexes
    return [media.open_index(ref, by_parts=True) for ref in refs]


RESTORED = {0: BASE[0], 1: NEWER[1], 5: NEWER[5], 39: BASE[39]}


def verdict(files: list[IndexFile], restored: dict[int, bytes], *lost: Lost) -> str:
    judge = Judge(files, EXTENT, fingerprint)
    for extent, data in sorted(restored.items()):
        judge.take(extent * EXTENT, data)
    return judge.verdict(lost)


def test_a_disk_that_is_what_its_indexes_say_is_passed(files: list[IndexFile]) -> None:
    assert verdict(files, RESTORED) == ""


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({1: BASE[1]}, "extent 1 was restored with other contents"),
        ({0: BASE[0][:-1] + b"?"}, "extent 0 was restored with other contents"),
        ({39: BASE[39] + b"behind the end"}, "extent 39 was restored with other contents"),
        ({2: BASE[2]}, f"at byte {2 * EXTENT}, where zeros belong"),
        ({7: BASE[0]}, f"at byte {7 * EXTENT}, where zeros belong"),
    ],
)
def test_other_bytes_are_not_passed(files: list[IndexFile], wrong: dict[int, bytes], complaint: str) -> None:
    assert complaint in verdict(files, RESTORED | wrong)


def test_of_a_disk_whose_index_cannot_be_read_it_says_nothing(tmp_path: Path) -> None:
    """The restore has named what is lost by that; the rest of it is right."""
    estate = Estate(tmp_path)
    slots = [estate.back_up(OS, BASE), estate.back_up(OS, NEWER)]
    name = estate.media.view().points[slots[0]].point.disks[0].indexes[0].name
    flip_bit(estate.path(name), 999)
    report = estate.verify(Depth.RESTORE)
    assert report.failures == () and report.harmed == tuple(slots)


def test_what_is_left_out_is_missed_unless_it_is_said_to_be_lost(files: list[IndexFile]) -> None:
    without = {extent: data for extent, data in RESTORED.items() if extent != 5}
    assert "extent 5 and 0 more were left out" in verdict(files, without)
    lost = Lost(ByteRange(5 * EXTENT, 6 * EXTENT), "runs/r/packs/x.pack", "gone")
    assert verdict(files, without, lost) == ""
    assert "extent 0" in verdict(files, {})
