"""Which points a found lie casts doubt on."""

from __future__ import annotations

import pytest

from tests.subclient.builders import a_source_disk
from tests.transfer.records import a_point, a_view
from vsa.media.entries import DoubtEntry
from vsa.model import Method
from vsa.transfer.doubts import doubt_of, suspects

DISK = a_source_disk()
OTHER = a_source_disk("other")


@pytest.mark.parametrize(
    ("methods", "doubtful"),
    [
        ("", ()),
        ("F", (0,)),
        ("FC", (1,)),
        ("FCC", (1, 2)),
        ("FCCR", (3,)),
        ("FCRCC", (3, 4)),
        ("FCFC", (3,)),
    ],
)
def test_points_since_the_last_whole_read_are_suspect(methods: str, doubtful: tuple[int, ...]) -> None:
    kinds = {"F": Method.FULL, "C": Method.CBT, "R": Method.CRC}
    view = a_view(*(a_point(DISK, method=kinds[letter]) for letter in methods))
    assert suspects(view, DISK.key) == doubtful


def test_other_disks_are_not_suspect() -> None:
    view = a_view(a_point(DISK, method=Method.FULL), a_point(OTHER), a_point(DISK), a_point(OTHER))
    assert suspects(view, DISK.key) == (2,)


def test_what_is_doubtful_already_is_not_named_again() -> None:
    doubt = DoubtEntry(points=(1,), disk_key=DISK.key, reason="it lied")
    view = a_view(a_point(DISK, method=Method.FULL), a_point(DISK), doubt, a_point(DISK))
    assert suspects(view, DISK.key) == (3,)
    assert doubt_of(view, 1, DISK.key) == "it lied"
    assert doubt_of(view, 1, OTHER.key) == ""
    assert doubt_of(view, 3, DISK.key) == ""
