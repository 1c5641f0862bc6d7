from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsa.errors import BadRequest
from vsa.text import age_text, parse_size, printable, size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1024**3, "1 GiB"),
        (2**70, "1073741824 TiB"),
    ],
)
def test_a_size_is_shown_in_the_largest_fitting_unit(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("text", "size"), [("65536", 65536), ("64KiB", 65536), ("64 kib", 65536), ("1 MiB", 2**20), ("7B", 7)]
)
def test_a_size_is_read_with_or_without_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "64 KB", "-1", "1.5MiB", "9" * 16, "KiB", "1 MiB extra"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="no size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3.0, "0 seconds"),
        (1.9, "1 second"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7_199, "119 minutes"),
        (47 * 3600, "47 hours"),
        (400 * 86_400, "400 days"),
    ],
)
def test_an_age_is_shown_in_the_largest_unit_that_fits_twice(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


@given(st.integers(0, 2**60))
def test_a_shown_size_is_within_a_tenth_of_its_unit_of_the_truth(size: int) -> None:
    number, unit = size_text(size).split()
    scale = 1024 ** ("B", "KiB", "MiB", "GiB", "TiB").index(unit)
    assert abs(float(number) * scale - size) <= scale / 10


@given(st.text())
def test_printable_text_holds_no_control_character_and_stays_on_one_line(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


def test_ordinary_names_are_shown_as_they_are() -> None:
    assert printable("größe-01 名前") == "größe-01 名前"


def test_terminal_sequences_are_written_out() -> None:
    assert printable("a\x1b[2Jb\u202ec\nd") == "a\\x1b[2Jb\\u202ec\\nd"
