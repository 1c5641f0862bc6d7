"""The VHD footer, field by field at the offsets of the specification."""

from __future__ import annotations

import datetime as dt
import struct
import uuid

import pytest

from azsim.vhd import FOOTER_BYTES, check_fixed_footer, fixed_footer

_ID = uuid.UUID("6f8dc5ab-9d2e-4f2b-b7e1-2d6f1d0c3c11")
_NOON = dt.datetime(2000, 1, 1, 12, tzinfo=dt.UTC)


def test_the_footer_has_its_fields_where_the_specification_has_them() -> None:
    footer = fixed_footer(1 << 30, _ID, _NOON)
    assert len(footer) == FOOTER_BYTES
    assert footer[:8] == b"conectix"
    assert struct.unpack_from(">Q", footer, 16) == ((1 << 64) - 1,)
    assert struct.unpack_from(">I", footer, 24) == (12 * 3600,)
    assert struct.unpack_from(">QQ", footer, 40) == (1 << 30, 1 << 30)
    assert struct.unpack_from(">HBB", footer, 56) == (2080, 16, 63)
    assert struct.unpack_from(">I", footer, 60) == (2,)
    assert footer[68:84] == _ID.bytes
    assert footer[84:] == bytes(428)


def test_the_checksum_is_the_complement_of_the_sum_of_all_other_bytes() -> None:
    footer = fixed_footer(5 << 20, _ID, _NOON)
    total = sum(footer[:64]) + sum(footer[68:])
    assert struct.unpack_from(">I", footer, 64) == (0xFFFFFFFF - total,)


def test_a_valid_footer_tells_the_size_of_its_disk() -> None:
    assert check_fixed_footer(fixed_footer(123 << 20, _ID, _NOON)) == 123 << 20


@pytest.mark.parametrize("at", [0, 41, 60, 64, 300, 511])
def test_a_footer_with_one_changed_byte_is_refused(at: int) -> None:
    footer = bytearray(fixed_footer(1 << 30, _ID, _NOON))
    footer[at] ^= 0x10
    with pytest.raises(ValueError, match="VHD"):
        check_fixed_footer(bytes(footer))


def test_zeros_are_no_footer() -> None:
    with pytest.raises(ValueError, match="cookie"):
        check_fixed_footer(bytes(FOOTER_BYTES))
